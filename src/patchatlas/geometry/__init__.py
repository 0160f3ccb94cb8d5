"""Where patches are: frames, grids, buckets, windows, and the only resampling in the house."""
