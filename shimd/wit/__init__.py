"""Interfaces of wit-bindgen 0.2, the way between core modules and hosts before the component model.

``.wit`` text (:mod:`~shimd.wit.syntax`) becomes types (:mod:`~shimd.wit.types`), which know how their values stand in
a guest's memory; :mod:`~shimd.wit.host` links Python objects to a module by them, on wasmtime.
"""
