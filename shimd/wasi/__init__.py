"""WASI 0.2 as a host in Python: an object per interface, linked by :mod:`shimd.component`.

For apps whose interfaces wasmtime's own host cannot be mixed with (``wasi:http`` servers, Spin). Guests run on threads
of their own, their waiting happens in the event loop of the process: :mod:`shimd.wasi.waiting`.
"""
