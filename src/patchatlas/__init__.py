"""Patch features you can trust: dense features in which every patch knows where it came from."""

__version__ = "0.1.0"
