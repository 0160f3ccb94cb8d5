"""Matching: where a descriptor fits best on another map, how sharply, and whether it finds its way back."""
