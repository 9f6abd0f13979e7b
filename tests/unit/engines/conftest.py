"""The contract's fixture, for tests of what engines do beyond it."""

from shimd.testing.contract import rig, way

__all__ = ["rig", "way"]
