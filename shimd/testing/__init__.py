"""Tests for authors of engines: ``pytest --shimd-engine=NAME`` holds an engine that is installed to the contract of
:mod:`shimd.shim`.
"""
