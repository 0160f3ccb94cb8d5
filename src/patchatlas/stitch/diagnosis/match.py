"""Where one picture lies in another: by correlation over all whole displacements, then to a fraction of a pixel.

Axes: c channels, *size, array order; displacements in array order as well.
"""

import torch
from jaxtyping import Bool, Complex, Float, Float64
from torch import Tensor

from patchatlas.geometry.rowmajor import unravel

Values = Float[Tensor, "c *size"] | Complex[Tensor, "c *size"]


def correlation(a: Values, b: Values, mask: Bool[Tensor, "*size"]) -> float:
    """Real part of the correlation of two pictures over `mask`, each less its mean there: 1 for equal ones.

    A factor does not matter, a phase does. 0 where one of them is constant.
    """
    first, second = (_centred(one, mask)[:, mask] for one in (a, b))
    norm = float(first.norm() * second.norm())
    return float((first.conj() * second).real.sum()) / norm if norm > 0 else 0.0


def find(
    template: Float[Tensor, "c *inner"] | Complex[Tensor, "c *inner"],
    mask: Bool[Tensor, "*inner"],
    picture: Values,
    lit: Bool[Tensor, "*size"],
) -> tuple[float, tuple[int, ...]]:
    """The displacement of the template at which it correlates best with the picture, and how well, up to 1.

    The template may reach over the picture's border; at least half of it must lie on lit pixels.

    Args:
        template: what is looked for.
        mask: pixels of it that count.
        picture: where it is looked for.
        lit: pixels of it that count.

    Returns:
        The correlation, and the index of the picture's pixel at which template pixel 0 lies; it may be negative.
    """
    full = [a + b - 1 for a, b in zip(template.shape[1:], picture.shape[1:], strict=True)]
    axes = tuple(range(1, picture.ndim))

    def spectrum(values: Tensor) -> Tensor:
        wide = values.to(torch.complex128 if values.dtype.itemsize > 8 else torch.complex64)
        transformed: Tensor = torch.fft.fftn(wide, s=full, dim=axes)
        return transformed

    inner, outer = _centred(template, mask), _centred(picture, lit)
    inner_mask = spectrum(mask[None].float()).conj()
    product = torch.fft.ifftn((spectrum(inner).conj() * spectrum(outer)).sum(dim=0), dim=tuple(range(len(full)))).real
    power = torch.fft.ifftn(inner_mask[0] * spectrum(outer.abs().square().sum(dim=0)[None])[0]).real
    many = torch.fft.ifftn(inner_mask[0] * spectrum(lit[None].float())[0]).real
    enough = many > 0.5 * float(mask.sum())
    norm = (power.clamp(min=0) * float(inner.abs().square().sum())).sqrt()
    floor = 1e-3 * float(norm.max())
    score = torch.where(enough & (norm > floor), product / norm.clamp(min=max(floor, 1e-30)), -1)
    best = int(score.argmax())
    at = unravel(torch.tensor(best), score.shape).tolist()
    placed = tuple(
        index if index < side else index - whole for index, side, whole in zip(at, picture.shape[1:], full, strict=True)
    )
    return float(score.flatten()[best]), placed


def displacement(picture: Values, reference: Values, mask: Bool[Tensor, "*size"]) -> Float64[Tensor, " ndim"]:
    """How far the picture lies from the reference, array order: one Gauss-Newton step (Lucas and Kanade 1981).

    picture(u) = reference(u - d) ~ reference(u) - d . gradient, solved for d by least squares over the pixels of `mask`
    that have all neighbours in it. Good below a pixel or so; a direction without slope gives 0.
    """
    inner = mask.clone()
    slopes = []
    for axis in range(mask.ndim):
        inner &= mask.roll(1, axis) & mask.roll(-1, axis)
        edge = torch.tensor([0, mask.shape[axis] - 1])
        inner.index_fill_(axis, edge, False)
        slopes.append((reference.roll(-1, axis + 1) - reference.roll(1, axis + 1)) / 2)
    apart = (picture - reference)[:, inner]
    along = torch.stack([slope[:, inner].flatten() for slope in slopes])
    matrix = (along.conj() @ along.T).real.double()
    right = -(along.conj() @ apart.flatten()).real.double()
    solved: Tensor = torch.linalg.pinv(matrix, rtol=1e-6, hermitian=True) @ right
    return solved


def _centred(values: Tensor, mask: Tensor) -> Tensor:
    """Values less their mean over the mask, zero outside it."""
    held = torch.where(mask, values, 0)
    mean = held.flatten(1).sum(dim=1) / mask.sum().clamp(min=1)
    return torch.where(mask, held - mean.reshape(-1, *([1] * mask.ndim)), 0)
