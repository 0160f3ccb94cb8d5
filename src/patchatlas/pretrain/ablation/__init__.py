"""Ablations: one config, changed in named ways, trained with several seeds, and one table of what came of it."""
