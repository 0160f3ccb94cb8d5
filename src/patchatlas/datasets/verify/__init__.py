"""Verification of stored features: every file, every stamp, every grid, and by encoding again, the alignment itself."""
