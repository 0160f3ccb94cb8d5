"""Crops to learn from: enough foreground in every one of them, exactly, and a record of where each lay."""
