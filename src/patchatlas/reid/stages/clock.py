"""Where the time of a run went, and how far it is."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Report = Callable[[str, int, int], None]
"""Told the name of a stage, how many frames of it are done, and how many there are."""

Item = TypeVar("Item")


def silent(_stage: str, _done: int, _total: int) -> None:
    """Report nothing."""


class Clock:
    """Seconds for each kind of work.

    Attributes:
        seconds: by the wall, by name.
        cpu_seconds: of all threads of this process.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu_seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count a block."""
        start, start_cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self.cpu_seconds[name] += time.process_time() - start_cpu

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Count how long items take to come, not what is done with them."""
        source = iter(items)
        while True:
            with self.timing(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item
