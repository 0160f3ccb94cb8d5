"""What is measured of an encoder: places, patches, the locate harness, identities, time.

Axes: k points.
"""

import statistics
import time
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from benchmarks.bundled.pairs import Pair
from benchmarks.locate import photos
from benchmarks.locate.encoders import Remembering
from benchmarks.locate.methods import METHODS, Question, Setting
from benchmarks.locate.sets import KINDS, SEEDS, Case, case
from benchmarks.locate.skin import HELD_OUT
from benchmarks.reid.generator import World, make
from benchmarks.reid.methods import Cut, embed, greedy, ours, track, tracks_only
from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.locate.search import in_picture
from patchatlas.matching.peaks import find_peaks, refine, scored_cells
from patchatlas.reid.embed.crops import CropEmbedder
from patchatlas.reid.evaluate import score_tracking

Array = np.ndarray
Numbers = dict[str, float]

LONG_SIDE = 768
"""Of the pairs as the encoder sees them; errors are told in pixels of this size."""
HARNESS_SIDE = 384
"""Of the drawn cases and photos of the locate harness, which is its own default; errors in pixels of its pictures."""
CROP_SIDE = 224
"""Long side of a crop of a person, or the multiple of the patch nearest to it."""
NEAR = 16.0
"""A nearest patch is right if its centre is so near to the truth, pixels at `LONG_SIDE`: the side of a patch of 16."""


def places(pair: Pair, encoder: Encoder) -> tuple[Array, Array]:
    """Errors of points and of patches in one pair, pixels at `LONG_SIDE`.

    A point's feature is read between patch centres; its place is the best patch of the target, told to a part of a
    patch by the parabola that `locate` uses. A patch is the one nearest to the point; its place is the centre of the
    patch most like it, held against the truth moved by as much as the patch's centre is from the point.

    Returns:
        of_points: (k,)
        of_patches: (k,)
    """
    source, target = (encode(picture, encoder, size=LONG_SIDE) for picture in (pair.source, pair.target))
    points = torch.from_numpy(pair.points)
    scored = scored_cells(target.grid)
    similarity = target.similarity(source.at(points))
    peaks = find_peaks(similarity, scored, radius=0.0, count=1)
    found = in_picture(target.grid, refine(similarity, scored, peaks.cells))[:, 0].numpy()

    centres = source.grid.centres()
    mine = torch.cdist(points, centres).argmin(dim=1)
    likeness = target.similarity(source.at(centres[mine])).flatten(1).masked_fill(~scored.flatten(), -2.0)
    nearest = target.grid.centres()[likeness.argmax(dim=1)].numpy()
    scale = LONG_SIDE / max(pair.target.shape[:2])
    aside = centres[mine].numpy() - pair.points
    return (
        scale * np.linalg.norm(found - pair.truth, axis=1),
        scale * np.linalg.norm(nearest - (pair.truth + aside), axis=1),
    )


def of_pairs(pairs: Sequence[Pair], encoder: Encoder) -> dict[str, Numbers]:
    """By kind: PCK at 8 and 16 px, mean and median error of points, part of right nearest patches."""
    errors: dict[str, list[tuple[Array, Array]]] = {}
    for pair in pairs:
        errors.setdefault(pair.kind, []).append(places(pair, encoder))
    numbers = {}
    for kind, parts in errors.items():
        points, patches = (np.concatenate(one) for one in zip(*parts, strict=True))
        numbers[kind] = {**_summary(points), "nearest patch": float(np.mean(patches <= NEAR))}
    return numbers


def of_harness(encoder: Encoder, *, cases: int) -> dict[str, Numbers]:
    """By set of the locate harness: its test split, the texture family kept for it, its photos; method `batch`.

    Args:
        cases: drawn cases of a kind.
    """
    sets = harness_cases(cases)
    return {name: _summary(np.concatenate([_located(one, encoder) for one in those])) for name, those in sets.items()}


@cache
def harness_cases(cases: int) -> dict[str, list[Case]]:
    """The cases of `of_harness` by set; drawing them takes longer than most encoders do."""
    seeds = SEEDS["test"][:cases]
    return {
        "locate, drawn": [case(kind, seed, "test") for kind in KINDS for seed in seeds],
        f"locate, {HELD_OUT}": [case(kind, seed, "test", family=HELD_OUT) for kind in KINDS for seed in seeds],
        "locate, photos": [one for one in photos.cases("test") if one.visible.all()],
    }


def of_identities(encoder: Encoder, *, seed: int, frames: int) -> dict[str, Numbers]:
    """IDF1 and HOTA on one generated video: unlinked, which no encoder changes, linked greedily by the calibrated
    threshold, and linked by the engine."""
    size = _multiple(CROP_SIDE, encoder.spec.patch[0])
    seen = embed(tracked(seed, frames), embedder=CropEmbedder(encoder, pooling="mean", size=size, batch=16))
    numbers = {}
    methods = {"unlinked": tracks_only, "greedy": greedy(first=False, threshold=None), "engine": ours()}
    for name, method in methods.items():
        scores = score_tracking(seen.episode.truth, method(seen).rows)
        numbers[f"re-id, {name}"] = {"IDF1": scores.idf1, "HOTA": scores.hota}
    return numbers


@cache
def tracked(seed: int, frames: int) -> Cut:
    """The video of `of_identities`, tracked and cut; drawing it takes longer than most encoders do."""
    (episode,) = make(World(seed=seed, frames=frames))
    return track(episode)


def milliseconds(encoder: Encoder, *, repeats: int = 3, side: int = 960) -> float:
    """CPU time of one thread for a megapixel, the median of several runs on a square of noise."""
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    spent = []
    for _ in range(repeats + 1):
        began = time.process_time()
        encoder(pixels)
        spent.append(time.process_time() - began)
    return 1000 * statistics.median(spent[1:]) / (side * side / 1e6)


def _located(one: Case, encoder: Encoder) -> Array:
    """Errors of the marks that are there, picture pixels."""
    setting = Setting(Remembering(encoder), HARNESS_SIDE, np.random.default_rng(0))
    if not one.uuids:
        return np.zeros(0)
    replies = METHODS["batch"](Question.of(one), setting)
    found = np.array([reply.xy for reply in replies])
    return np.linalg.norm(found - one.truth, axis=1)[one.visible]


def _summary(errors: Array) -> Numbers:
    return {
        "PCK@8": float(np.mean(errors <= 8)),
        "PCK@16": float(np.mean(errors <= 16)),
        "mean": float(np.mean(errors)),
        "median": float(np.median(errors)),
        "count": len(errors),
    }


def _multiple(size: int, patch: int) -> int:
    """The nearest multiple of the patch."""
    return round(size / patch) * patch
