"""Dense features for data sets: build, verify, pack and load."""
