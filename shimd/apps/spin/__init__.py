"""Spin applications (https://spinframework.dev): what a ``spin.toml`` describes, served."""
