"""Interfaces of natively run components whose host is a Python object, in a process of its own.

``docs/bridge.md`` describes the wire; ``native/wasmtime/src/bridge`` is the other end.
"""
