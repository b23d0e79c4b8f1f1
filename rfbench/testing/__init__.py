"""Checks for the tests of a package: what every algorithm must pass."""

from rfbench.testing.conformance import CHECKS

__all__ = ["CHECKS"]
