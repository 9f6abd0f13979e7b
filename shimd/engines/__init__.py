"""Engines: the Engine protocol and its implementations, found by entry point."""
