"""Servers that sit on an engine: applications of more than one function, served rather than run."""
