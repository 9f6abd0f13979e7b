"""Commands that open sockets, on our own host of WASI 0.2."""
