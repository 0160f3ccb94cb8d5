"""What is counted of a volume once, so that no crop has to be read to know what it holds."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int16, Integer

from patchatlas.pretrain.cache import HISTOGRAM, cells_name
from patchatlas.pretrain.foreground import body_mask, count_above, count_cells
from patchatlas.pretrain.histogram import count_values
from patchatlas.pretrain.index_settings import Counting

Tables = Mapping[str, Integer[np.ndarray, "..."]]


def count_tables(
    values: Int16[np.ndarray, "z y x"],
    spacing_zyx: Sequence[float],
    counting: Counting,
    *,
    given: Bool[np.ndarray, "z y x"] | None = None,
) -> tuple[Tables, dict[str, float]]:
    """The tables of a volume.

    Args:
        values: HU.
        spacing_zyx: mm between voxels.
        counting: what to count.
        given: what counts as body; found by its threshold if not given.

    Returns:
        The arrays by the names that they are stored under, and the share of foreground by key.
    """
    tables: dict[str, Integer[np.ndarray, "..."]] = {HISTOGRAM: count_values(values)}
    shares: dict[str, float] = {}
    for key, threshold in counting.keys().items():
        if threshold is None:
            body = given
            if body is None:
                body = body_mask(values, spacing_zyx, threshold=counting.body_threshold, detach_mm=counting.detach_mm)
            counts = count_cells(body, counting.cell_zyx)
        else:
            counts = count_above(values, threshold, counting.cell_zyx)
        shares[key] = float(counts.sum(dtype=np.int64) / values.size)
        small = math.prod(counting.cell_zyx) <= np.iinfo(np.uint16).max
        tables[cells_name(key)] = counts.astype(np.uint16) if small else counts
    return tables, shares
