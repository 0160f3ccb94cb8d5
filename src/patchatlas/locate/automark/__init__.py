"""Whole sessions: every mark of the reference photos that a folder of new photos lacks is looked for and proposed."""
