"""Locate: find a point that is marked in one picture in another."""
