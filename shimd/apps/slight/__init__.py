"""Slight applications: ``/slightfile.toml`` and ``/app.wasm``, a core module of wit-bindgen 0.2's interfaces."""
