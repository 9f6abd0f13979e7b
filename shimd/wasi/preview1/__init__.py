"""Sockets for modules of WASI preview 1, whose interface can accept connections, but not open a listening socket.

Functions over a guest's memory and numbers, as the interface has them (wasi_snapshot_preview1.witx); no engine.
"""
