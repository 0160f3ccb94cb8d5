"""How pieces come together again: sums and weights of tiles on one canvas."""
