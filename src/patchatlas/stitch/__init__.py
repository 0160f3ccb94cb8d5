"""Stitch: tiles and their positions made into one canvas, and proof that it is right."""
