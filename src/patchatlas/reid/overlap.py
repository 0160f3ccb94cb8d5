"""How much boxes overlap. Boxes are xyxy, end excluded, in any one plane; n and m boxes."""

import torch
from jaxtyping import Float64
from torch import Tensor


def areas(boxes: Float64[Tensor, "n 4"]) -> Float64[Tensor, " n"]:
    """Area of each box, square pixels; 0 where an end lies before its start."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def intersections(one: Float64[Tensor, "n 4"], other: Float64[Tensor, "m 4"]) -> Float64[Tensor, "n m"]:
    """Area that each pair shares, square pixels."""
    start = torch.maximum(one[:, None, :2], other[None, :, :2])
    end = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    return (end - start).clamp(min=0).prod(dim=2)


def iou(one: Float64[Tensor, "n 4"], other: Float64[Tensor, "m 4"]) -> Float64[Tensor, "n m"]:
    """Area shared over area covered by either, 0..1; 0 for a pair of empty boxes."""
    shared = intersections(one, other)
    covered = areas(one)[:, None] + areas(other)[None, :] - shared
    return torch.where(covered > 0, shared / covered.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
