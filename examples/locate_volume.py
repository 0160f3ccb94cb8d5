"""Find landmarks of one CT-like volume in its follow-up: drawn bodies with known truth, no weights, under a minute.

    python examples/locate_volume.py [--seed 0] [--marks 12]

The follow-up lies otherwise (turned, scaled, shifted), has breathed (smooth waves), has thicker slices and new noise.
The encoder is a plain one that needs no training: how much the volume rises and falls along each axis, patch by patch,
about each patch. Any 3-D encoder takes its place. Errors are printed in voxels of the follow-up.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders.protocol import Tokens
from patchatlas.locate.centring import centred_on
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.locate.volume import volume_frame
from patchatlas.spec import EncoderSpec

Array = np.ndarray
Random = np.random.Generator

BODY = (80, 112, 128)
"""Voxels of the drawn body, (z, y, x), of 1.5 mm each; scans show it without the outermost `MARGIN`."""
MARGIN = 12
SOURCE_VOXEL, TARGET_VOXEL = (1.0, 1.0, 1.0), (1.5, 1.0, 1.0)
"""Sizes of the scans' voxels along (z, y, x), in voxels of the body: the follow-up has thicker slices."""


class GradientEncoder:
    """How much a volume rises and falls along each axis, summed over patches, for a patch and those around it.

    A relative of SIFT (Lowe 2004) in three dimensions, upright: six numbers a patch, of (2 `reach` + 1)^3 patches, near
    ones counting more than far ones.
    """

    device = torch.device("cpu")

    def __init__(self, patch: int = 4, reach: int = 3) -> None:
        self.patch, self.reach = patch, reach
        across = torch.arange(-reach, reach + 1) / (reach + 0.5)
        bell = torch.exp(-across.square())
        self.weights = bell[:, None, None] * bell[:, None] * bell
        self.spec = EncoderSpec(
            name="gradients",
            family="gradients",
            patch=(patch, patch, patch),
            dim=6 * self.weights.numel(),
            registers=0,
            has_cls=False,
            channels=1,
            mean=(0.0,),
            std=(1.0,),
            layer=0,
            depth=1,
            norm="none",
            dtype="fp32",
            licence="Apache-2.0",
            weights_sha256=f"{patch:032d}{reach:032d}",
            source="bundled",
        )

    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Volumes (b, 1, z, h, w) to tokens (b, n, dim)."""
        slopes = torch.stack(torch.gradient(pixels[:, 0], dim=(1, 2, 3)), dim=1)
        ways = torch.cat([slopes.clamp(min=0), (-slopes).clamp(min=0)], dim=1)  # b 6 z h w
        summed = F.avg_pool3d(ways, self.patch).sqrt()  # the root: strong edges must not drown the rest
        around = F.pad(summed, [self.reach] * 6, mode="replicate")
        for axis in (2, 3, 4):
            around = around.unfold(axis, 2 * self.reach + 1, 1)
        tokens = (around * self.weights).movedim(1, 4)  # b gz gh gw 6 rz rh rw
        return Tokens(tokens.flatten(4).flatten(1, 3))


@dataclass(frozen=True)
class Motion:
    """How the follow-up differs: where a place (z, y, x) of its body was in the first."""

    turn: Array
    shift: Array
    waves: Array
    phases: Array
    steps: Array

    def before(self, places: Array) -> Array:
        """Where places (p, 3) of the follow-up were."""
        middle = np.array(BODY) / 2
        moved = (places - middle) @ self.turn.T + middle + self.shift
        return moved + np.sin(places @ self.waves.T + self.phases) @ self.steps

    def after(self, places: Array) -> Array:
        """Where places (p, 3) of the first are in the follow-up, by repetition."""
        found = places
        for _ in range(50):
            found = found - (self.before(found) - places) @ np.linalg.inv(self.turn).T
        return found


def draw_body(random: Random) -> Array:
    """Soft tissue with organs, vessels and bones, in Hounsfield units."""
    z, y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in BODY), indexing="ij")
    rows, columns = BODY[1], BODY[2]
    body = ((y - rows / 2) / (0.44 * rows)) ** 2 + ((x - columns / 2) / (0.47 * columns)) ** 2 < 1
    fine, coarse = (gaussian_filter(random.normal(size=BODY), sigma) for sigma in (1.5, 6))
    units = np.where(body, 40 + 18 * coarse / coarse.std() + 12 * fine / fine.std(), -1000.0)
    kinds = [(10, (8, 22), (-90, 110)), (40, (2, 6), (-80, 200)), (16, (2, 9), (350, 900))]
    for count, radii, values in kinds:  # organs, vessels and glands, bones
        for _ in range(count):
            middle = random.uniform([0, 0.15 * rows, 0.12 * columns], [BODY[0], 0.85 * rows, 0.88 * columns])
            axes, _ = np.linalg.qr(random.normal(size=(3, 3)))
            away = (np.stack([z, y, x], axis=-1) - middle) @ axes / random.uniform(*radii, 3)
            inside = body & ((away**2).sum(axis=-1) < 1)
            units[inside] = random.uniform(*values) + 8 * (fine / fine.std())[inside]
    return gaussian_filter(units, 0.7)


def draw_motion(random: Random) -> Motion:
    """Up to 4 degrees about each axis, 4 % of scale, 9 voxels of shift and some 2 of waves."""
    turn = np.eye(3) * np.exp(random.uniform(-0.04, 0.04))
    for axis, angle in enumerate(np.deg2rad(random.uniform(-4, 4, 3))):
        i, j = (n for n in range(3) if n != axis)
        about = np.eye(3)
        about[i, i] = about[j, j] = np.cos(angle)
        about[i, j], about[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ about
    waves, steps = random.normal(size=(2, 4, 3))
    waves *= 2 * np.pi / random.uniform(60, 120, (4, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    return Motion(turn, random.uniform(-9, 9, 3), waves, random.uniform(0, 2 * np.pi, 4), steps)


def scan(body: Array, voxel: tuple[float, ...], random: Random, motion: Motion | None = None) -> Tensor:
    """What a scanner shows of the body without its margin: (1, z, h, w), -200 to 600 Hounsfield units as 0 to 1."""
    size = [int((n - 2 * MARGIN) / v) for n, v in zip(BODY, voxel, strict=True)]
    centres = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij"), axis=-1).reshape(-1, 3)
    places = centres * voxel + MARGIN
    if motion is not None:
        places = motion.before(places)
    units = map_coordinates(body, places.T - 0.5, order=1, mode="nearest").reshape(size)
    units += random.normal(0, 15, size)
    return torch.from_numpy(((units + 200) / 800).clip(0, 1)).float()[None]


def pick_marks(source: Tensor, target_zhw: Array, motion: Motion, *, count: int) -> tuple[Array, Array]:
    """The most distinct corners of the source that the target shows too, (k, 3) x y z, and where they are in it."""
    slopes = np.gradient(gaussian_filter(source[0].numpy(), 1.5))
    tensor = np.stack([np.stack([gaussian_filter(a * b, 3) for a in slopes], -1) for b in slopes], -1)
    trace = np.trace(tensor, axis1=-2, axis2=-1)
    corner = np.linalg.det(tensor) / (trace**2 + 1e-12)  # Forstner's measure
    peaks = np.argwhere((corner == maximum_filter(corner, 13)) & (corner > 0))
    strongest = peaks[np.argsort(-corner[tuple(peaks.T)])] + 0.5
    there = (motion.after(strongest * SOURCE_VOXEL + MARGIN) - MARGIN) / TARGET_VOXEL
    inside = [
        ((at >= edge) & (at <= size - edge)).all(axis=1)
        for at, size, edge in ((strongest, np.array(source.shape[1:]), 8), (there, target_zhw, 5))
    ]
    kept = np.flatnonzero(inside[0] & inside[1])[:count]
    return strongest[kept, ::-1].copy(), there[kept, ::-1].copy()


def find(source: Tensor, target: Tensor, marks_xyz: Array, encoder: GradientEncoder) -> list[Finding]:
    """Each mark, the target encoded once, the source anew for each with the mark in the centre of a patch."""
    patch = encoder.spec.patch
    target_frame = volume_frame(target.shape[1:], patch=patch, scale=TARGET_VOXEL)
    target_map = encode(target, encoder, frame=target_frame)
    drawn = volume_frame(source.shape[1:], patch=patch, scale=SOURCE_VOXEL)
    findings = []
    for k, mark in enumerate(marks_xyz.tolist()):
        source_map = encode(source, encoder, frame=centred_on(drawn, mark, patch=patch))
        point = torch.tensor([mark], dtype=torch.float64)
        findings += locate_points(source_map, target_map, point, uuids=[f"mark {k}"], image_size=max(drawn.size))
    return findings


def main() -> None:
    """Draw, find, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--marks", type=int, default=12)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    began = time.perf_counter()
    body, motion = draw_body(random), draw_motion(random)
    source, target = scan(body, SOURCE_VOXEL, random), scan(body, TARGET_VOXEL, random, motion)
    marks, truth = pick_marks(source, np.array(target.shape[1:]), motion, count=options.marks)
    print(f"scans of {tuple(source.shape[1:])} and {tuple(target.shape[1:])} voxels (z, y, x), {len(marks)} marks")
    findings = find(source, target, marks, GradientEncoder())
    errors = np.linalg.norm(np.array([finding.target_xy for finding in findings]) - truth, axis=1)
    for finding, there, error in zip(findings, truth, errors, strict=True):
        found = ", ".join(f"{at:5.1f}" for at in finding.target_xy)
        true = ", ".join(f"{at:5.1f}" for at in there)
        print(f"  {finding.uuid:8s} found at ({found}), is at ({true}): {error:5.2f} voxels; {finding.state}")
    unmoved = np.linalg.norm(marks / TARGET_VOXEL[::-1] - truth, axis=1)
    print(f"error: median {np.median(errors):.2f}, largest {errors.max():.2f} voxels; left where it was: mean", end=" ")
    print(f"{unmoved.mean():.2f} voxels")
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
