"""Measurements of re-identification."""
