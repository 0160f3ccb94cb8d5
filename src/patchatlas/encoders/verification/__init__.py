"""Whether weights are whole, sound and what their name says: one check after the other, all problems at once."""
