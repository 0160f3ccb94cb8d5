"""Encoders: networks and descriptors that turn pictures or volumes into patch tokens."""
