"""How bright a colour is."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of Rec. ITU-R BT.601, which OpenCV uses too."""
