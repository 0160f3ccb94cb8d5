"""Random scans for the tests of the canvas: asymmetric in everything, so that no swap or sign goes unseen."""

import torch

INTERPOLATIONS = ("nearest", "linear", "cubic", "fourier")


def generator(seed: int) -> torch.Generator:
    """Repeatable randomness."""
    return torch.Generator().manual_seed(seed)


def random_tiles(
    seed: int, *, n: int = 5, channels: int = 2, size: tuple[int, ...] = (5, 7), dtype: torch.dtype = torch.complex128
) -> torch.Tensor:
    """Tiles of random numbers, no two alike."""
    return torch.randn(n, channels, *size, dtype=dtype, generator=generator(seed))


def random_positions(seed: int, *, n: int = 5, ndim: int = 2, spread: float = 9.0) -> torch.Tensor:
    """Corners with every fraction, some negative, wider in x than in y than in z."""
    widths = torch.tensor([2.0, 1.0, 0.6], dtype=torch.float64)[:ndim] * spread
    return torch.rand(n, ndim, dtype=torch.float64, generator=generator(seed + 1)) * widths - 3.3
