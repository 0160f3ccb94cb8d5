"""Monitors: numbers that see a collapse, and a sentence that says which one and what to change."""
