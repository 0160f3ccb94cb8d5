"""What files with weights are called. Apart from `checkpoint.py`, so that names can be looked up without torch."""

PICKLED = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *PICKLED)
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""Weights of a folder, in the order in which they are looked for; each may be sharded with `NAME.index.json`."""
