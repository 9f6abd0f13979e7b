"""``wasi:http``: what is served, and what is asked of others (https://github.com/WebAssembly/wasi-http, 0.2)."""
