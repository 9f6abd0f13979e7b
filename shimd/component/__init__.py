"""Hosting components whose imports are Python objects, on wasmtime's C API.

wasmtime's own preview 2 host cannot be mixed with interfaces made elsewhere (their stream types differ), and no binding
makes its incoming HTTP requests, so every import of such a component is ours.
"""
