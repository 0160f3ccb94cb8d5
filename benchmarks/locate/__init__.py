"""Measure `locate`: drawn skin with exact truth, real photos, peers' methods, and the numbers that compare them."""
