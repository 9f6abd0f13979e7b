"""shimd: WebAssembly apps under containerd, one supervisor, one worker process per app."""

__version__ = "0.1.0"
