"""Decoded photographs that are held in memory, the last ones used, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable

from patchatlas.geometry.pyramid import Pyramid


class Kept:
    """Photographs by name.

    Args:
        most_bytes: that they may take together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, Pyramid] = OrderedDict()
        self._bytes = 0

    def get(self, name: str, read: Callable[[], Pyramid]) -> Pyramid:
        """A photograph, read if it is not held; those that were not used for longest make room for it."""
        found = self._held.get(name)
        if found is None:
            found = read()
            self._held[name] = found
            self._bytes += found.nbytes
        self._held.move_to_end(name)
        while self._bytes > self._most_bytes:
            _, left = self._held.popitem(last=False)
            self._bytes -= left.nbytes
        return found
