"""Detectors: each takes a frame of a video and gives the boxes in it."""
