"""Threads for a part of the work, which placing can share out without a change of bits, and long sums cannot.

torch adds up a long sum in as many parts as there are threads, so its last bits depend on their number. Placing adds
tiles pixel by pixel, each in one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch, and by it the compiled canvas, take so many threads; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
