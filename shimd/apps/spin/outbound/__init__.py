"""Servers that components connect to, by the interfaces of ``fermyon:spin@2.0.0`` and ``spin:postgres``."""
