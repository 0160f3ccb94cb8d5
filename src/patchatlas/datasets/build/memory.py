"""Out of memory: halve the batch, down to one picture, and say so."""

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from patchatlas.errors import ResourceError

log = logging.getLogger(__name__)

_NO_MEMORY = ("can't allocate memory", "not enough memory")
"""How torch says it of the CPU's memory (c10/core/impl/alloc_cpu.cpp): a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


class Halving:
    """Calls a network on as much of a batch as fits; what once did not fit is not tried again.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._most: dict[tuple[int, ...], int] = {}
        self._lock = threading.Lock()

    def __call__(
        self, network: Callable[[Tensor], dict[str, Tensor]], pixels: Tensor, *, where: str
    ) -> dict[str, Tensor]:
        """What `network` gives for a batch, put together from parts where the whole does not fit.

        Args:
            network: pixels (b, c, h, w) to arrays by name, first axis the batch.
            pixels: the batch.
            where: device, for the messages.

        Raises:
            ResourceError: even one picture does not fit.
        """
        shape = tuple(pixels.shape[1:])
        rows = min(len(pixels), self._most.get(shape, len(pixels)))
        while True:
            try:
                parts = [network(part) for part in pixels.split(rows)]
                return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts[1:] else parts[0]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if rows == 1:
                    raise ResourceError(
                        f"{where} ran out of memory on one picture of {shape[2]}x{shape[1]} px; take smaller buckets, "
                        "a smaller encoder or another device"
                    ) from error
            rows = self._halve(shape, rows, where)

    def _halve(self, shape: tuple[int, ...], rows: int, where: str) -> int:
        half = rows // 2
        with self._lock:
            if self._most.get(shape, rows) > half:
                self._most[shape] = half
                log.warning(
                    "%s ran out of memory on %d pictures of %dx%d px; taking %d at a time from now on",
                    where, rows, shape[2], shape[1], half,
                )  # fmt: skip
            return min(half, self._most[shape])
