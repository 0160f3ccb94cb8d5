"""Number types of stored arrays, as everything above wants them: this machine's byte order, 64 bits a part at most."""

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

# torch has none longer (`torch.from_numpy` raises TypeError), and takes no other byte order (ValueError).
_LONGEST = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}


def native_type(dtype: np.dtype) -> np.dtype:
    """The type that `native` gives for this one."""
    longest = _LONGEST.get(dtype.kind)
    if longest is not None and dtype.itemsize > longest.itemsize:
        return longest
    return dtype.newbyteorder("=")


def native(array: Shaped[ndarray, "..."]) -> Shaped[ndarray, "..."]:
    """The same numbers in this machine's byte order, long doubles as doubles; the array itself where it is so."""
    with np.errstate(over="ignore"):  # what a double does not hold is infinite, and refused as such
        return array.astype(native_type(array.dtype), copy=False)
