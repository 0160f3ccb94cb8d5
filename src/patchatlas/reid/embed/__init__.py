"""Boxes become vectors: backends, crops, clips, regions, what is worth embedding, and the cache."""
