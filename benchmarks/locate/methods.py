"""Every way of answering that is compared: ours with its options, peers' ways, and what nobody should fall below.

A method gets a `Question`, which is a case without its truth. Only `oracle` and `any mole`, which are no methods but
marks on the ruler, see the case itself.

Peers: the ways of aevri/mel's `dino3-map` and `dino3-map-progressive` (branch of 2026-01-04), written anew from what
they do: background painted in ImageNet's mean colour, the token of the patch that holds the mark, the best patch by
cosine, its centre.

Axes: k marks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.locate.encoders import Remembering
from benchmarks.locate.sets import Case
from benchmarks.locate.skin import Array, Random
from patchatlas.arrays import ImageU8
from patchatlas.crops import encode_crops
from patchatlas.dense import encode
from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.masks import Mask
from patchatlas.locate.centring import centred_on
from patchatlas.locate.closer import look_closer
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.pair import locate_pair
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.reference import Reference
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.locate.together import locate_together
from patchatlas.locate.views import meet_views


@dataclass(frozen=True, eq=False)
class Question:
    """A case as a method sees it; fields as in `Case`."""

    sources: tuple[ImageU8, ...]
    source_points: tuple[Array, ...]
    source_masks: tuple[Array | None, ...]
    uuids: tuple[str, ...]
    target: ImageU8
    target_mask: Array | None

    @classmethod
    def of(cls, case: Case) -> "Question":
        """The case without its truth."""
        return cls(case.sources, case.source_points, case.source_masks, case.uuids, case.target, case.target_mask)

    def first_view(self, mark: int) -> int:
        """Number of the first source that shows a mark."""
        return next(s for s, points in enumerate(self.source_points) if not np.isnan(points[mark, 0]))

    @property
    def target_hw(self) -> tuple[int, int]:
        """Rows and columns of the target."""
        return self.target.shape[0], self.target.shape[1]


@dataclass(frozen=True)
class Reply:
    """The answer for one mark.

    Attributes:
        xy: where, target pixels.
        confidence: the more, the surer.
        state: `found`, `uncertain`, `absent`, or `` if the method has no states.
    """

    xy: tuple[float, ...]
    confidence: float = 0.5
    state: str = ""


@dataclass(frozen=True)
class Setting:
    """What a method works with.

    Attributes:
        encoder: makes the tokens.
        image_size: long side of the pictures as the encoder sees them.
        random: for methods that guess.
    """

    encoder: Remembering
    image_size: int
    random: Random


Method = Callable[[Question, Setting], list[Reply]]


# -- the ruler --------------------------------------------------------------------------------------------------------


def target_grid(question: Question, setting: Setting) -> PatchGrid:
    """The plain patch grid of the target."""
    patch = setting.encoder.spec.patch
    return PatchGrid.on(fit(question.target_hw, long_side=setting.image_size, patch=patch), patch)


def chance(question: Question, setting: Setting) -> list[Reply]:
    """Anywhere in the target."""
    rows, columns = question.target_hw
    return [Reply(tuple(setting.random.uniform(0, [columns, rows]))) for _ in question.uuids]


def copy_coordinates(question: Question, _: Setting) -> list[Reply]:
    """Where the mark is in its first view, as a part of the picture."""
    replies = []
    for k in range(len(question.uuids)):
        view = question.first_view(k)
        height, width = question.sources[view].shape[:2]
        part = question.source_points[view][k] / [width, height]
        replies.append(Reply(tuple(part * question.target_hw[::-1])))
    return replies


def oracle(case: Case, setting: Setting) -> list[Reply]:
    """The patch centre nearest to the truth."""
    centres = target_grid(Question.of(case), setting).centres().numpy()
    away = np.linalg.norm(centres[None] - np.nan_to_num(case.truth)[:, None], axis=2)
    return [Reply(tuple(centres[n])) for n in away.argmin(axis=1)]


def any_mole(case: Case, setting: Setting) -> list[Reply]:
    """One of the marks that the target shows, at random."""
    there = case.truth[case.visible]
    if not len(there):
        return chance(Question.of(case), setting)
    return [Reply(tuple(there[setting.random.integers(len(there))])) for _ in case.uuids]


def control(case: Case, other: Case, method: Method, setting: Setting) -> list[Reply]:
    """What a method says if the sources are of another scene: it can find nothing."""
    asked = replace(
        Question.of(case),
        sources=other.sources,
        source_points=other.source_points,
        source_masks=other.source_masks,
        uuids=other.uuids,
    )
    said = method(asked, setting)
    return [said[k % len(said)] for k in range(len(case.uuids))]


# -- mel's ways -------------------------------------------------------------------------------------------------------


def mel_argmax(question: Question, setting: Setting) -> list[Reply]:
    """The patch that holds the mark, the patch most like it, its centre."""
    target_map = _plain_map(_on_mean_colour(question.target, question.target_mask), setting)
    replies = []
    for k in range(len(question.uuids)):
        view = question.first_view(k)
        source = _on_mean_colour(question.sources[view], question.source_masks[view])
        replies.append(_nearest_patch(_plain_map(source, setting), target_map, question.source_points[view][k]))
    return replies


def mel_progressive(question: Question, setting: Setting) -> list[Reply]:
    """The same at half the size, then in crops of that size at the scale of `mel_argmax` about mark and best place.

    Crops that would leave the picture are moved inside.
    """
    coarse = replace(setting, image_size=setting.image_size // 2)
    target = _on_mean_colour(question.target, question.target_mask)
    first = mel_argmax(question, coarse)
    replies = []
    for k, guess in enumerate(first):
        view = question.first_view(k)
        source = _on_mean_colour(question.sources[view], question.source_masks[view])
        point = question.source_points[view][k]
        source_map = encode(source, setting.encoder, frame=_crop(source, point, coarse, setting))
        target_map = encode(target, setting.encoder, frame=_crop(target, np.array(guess.xy), coarse, setting))
        replies.append(_nearest_patch(source_map, target_map, point))
    return replies


def _nearest_patch(source_map: FeatureMap, target_map: FeatureMap, point: Array) -> Reply:
    centres = source_map.grid.centres().numpy()
    held_by = int(np.linalg.norm(centres - point, axis=1).argmin())
    asked = source_map.at(torch.from_numpy(centres[held_by : held_by + 1]))
    similarity = target_map.similarity(asked).flatten()
    best = int(similarity.argmax())
    return Reply(tuple(target_map.grid.centres()[best].tolist()), float(similarity[best]))


def _crop(picture: ImageU8, middle: Array, coarse: Setting, fine: Setting) -> Frame:
    """A square of `coarse.image_size` input pixels at the scale of `fine`, about a point, inside the picture."""
    patch = fine.encoder.spec.patch
    whole = fit(picture.shape[:2], long_side=fine.image_size, patch=patch)
    start, size = [], []
    for axis in range(2):
        side = min(coarse.image_size, whole.size[axis]) // patch[axis] * patch[axis]
        at = round(float(middle[1 - axis]) / float(whole.scale[axis]) - side / 2)
        start.append(min(max(at, 0), whole.size[axis] - side))
        size.append(side)
    return whole.crop(start, size)


def _on_mean_colour(picture: ImageU8, mask: Array | None) -> ImageU8:
    colour = np.round(255 * np.array(IMAGENET[0])).astype(np.uint8)
    return picture if mask is None else np.where(mask[..., None], picture, colour)


def _plain_map(picture: ImageU8, setting: Setting) -> FeatureMap:
    return encode(picture, setting.encoder, size=setting.image_size)


# -- ours -------------------------------------------------------------------------------------------------------------


def ours_single(**options: object) -> Method:
    """`locate_pair` for each mark in its first view: the mark is the centre of a patch.

    Args:
        options: of the `Recipe`, beside the image size.
    """

    def answer(question: Question, setting: Setting) -> list[Reply]:
        recipe = Recipe(image_size=setting.image_size, **options)
        encoder = setting.encoder.prepared(recipe)
        replies = []
        for k, uuid in enumerate(question.uuids):
            view = question.first_view(k)
            finding = locate_pair(
                question.sources[view],
                question.target,
                tuple(question.source_points[view][k].tolist()),
                encoder,
                uuid=uuid,
                recipe=recipe,
                source_mask=as_mask(question.source_masks[view]),
                target_mask=as_mask(question.target_mask),
            )
            replies.append(Reply(finding.target_xy, finding.confidence, finding.state))
        return replies

    return answer


def ours_woven(*, parts: int) -> Method:
    """As `ours_single`, of a target that was encoded `parts` x `parts` times and woven into a finer map, see `_woven`.

    Args:
        parts: of a patch; divides it.
    """

    def answer(question: Question, setting: Setting) -> list[Reply]:
        target_map = _woven(question.target, setting, parts)
        target_mask = patches_inside(question.target_mask, target_map)
        patch = setting.encoder.spec.patch
        replies = []
        for k, uuid in enumerate(question.uuids):
            view = question.first_view(k)
            source, point = question.sources[view], question.source_points[view][k]
            drawn = fit(source.shape[:2], long_side=setting.image_size, patch=patch)
            source_map = encode(source, setting.encoder, frame=centred_on(drawn, point.tolist(), patch=patch))
            (finding,) = locate_points(
                source_map,
                target_map,
                torch.from_numpy(point[None]),
                uuids=[uuid],
                image_size=setting.image_size,
                source_mask=patches_inside(question.source_masks[view], source_map),
                target_mask=target_mask,
            )
            replies.append(Reply(finding.target_xy, finding.confidence, finding.state))
        return replies

    return answer


def _woven(picture: ImageU8, setting: Setting, parts: int) -> FeatureMap:
    """A map of `parts` x `parts` encodings, each a part of a patch on; the centres of all fill the picture evenly."""
    (patch, _) = setting.encoder.spec.patch
    stride = patch // parts
    whole = fit(picture.shape[:2], long_side=setting.image_size, patch=(patch, patch))
    before = (patch - stride) // 2
    frame = whole.pad([before] * 2, [patch - stride - before] * 2)
    (woven,) = encode_crops(picture, setting.encoder, [frame], stride=stride)
    return woven


def ours_batch(**options: object) -> Method:
    """`locate_points` for all marks of a view at once, each in its first view: one forward a picture.

    Args:
        options: of the `Recipe`, beside the image size; `jitter` and `zoom` look closer at the best places.
    """

    def answer(question: Question, setting: Setting) -> list[Reply]:
        recipe = Recipe(image_size=setting.image_size, **options)
        references, target_map = encode_question(question, setting, recipe)
        found: dict[int, Finding] = {}
        for number, reference in enumerate(references):
            marks = [k for k in range(len(question.uuids)) if question.first_view(k) == number]
            findings = _look(reference, [question.uuids[k] for k in marks], target_map, question, recipe)
            if recipe.closer:
                findings = _closer(findings, number, reference, target_map, question, setting, recipe)
            found |= zip(marks, findings, strict=True)
        return [Reply(f.target_xy, f.confidence, f.state) for _, f in sorted(found.items())]

    return answer


def ours_views(question: Question, setting: Setting) -> list[Reply]:
    """As `ours_batch` in every view that shows the mark; the views vote."""
    recipe = Recipe(image_size=setting.image_size)
    references, target_map = encode_question(question, setting, recipe)
    alone: dict[str, list[Finding]] = {uuid: [] for uuid in question.uuids}
    for reference in references:
        for finding in _look(reference, reference.uuids, target_map, question, recipe):
            alone[finding.uuid].append(finding)
    met = [meet_views(found, views=[str(v) for v in range(len(found))]).finding for found in alone.values()]
    return [Reply(one.target_xy, one.confidence, one.state) for one in met]


def ours_together(*, parts: int = 1, **options: object) -> Method:
    """`locate_together`: every view and every mark at once, no two marks in one place.

    Args:
        parts: above 1, all pictures are encoded so many times along each axis and woven, see `_woven`.
        options: of the `Recipe`, beside the image size; `jitter` and `zoom` look closer at the places taken.
    """

    def answer(question: Question, setting: Setting) -> list[Reply]:
        recipe = Recipe(image_size=setting.image_size, **options)
        references, target_map = encode_question(question, setting, recipe, parts=parts)
        placed = locate_together(
            references,
            target_map,
            uuids=question.uuids,
            target_mask=patches_inside(question.target_mask, target_map),
            image_size=recipe.image_size,
        )
        places = {one.uuid: one.target_xy for one in placed.placements}
        for number, reference in enumerate(references if recipe.closer else ()):
            # From the view that agrees best; the places that were taken, and no others.
            mine = [one for one in placed.placements if one.views.votes[one.views.best].view == reference.name]
            taken = [replace(one.views.finding, target_xy=one.target_xy, runners_up=()) for one in mine]
            for finding in _closer(taken, number, reference, target_map, question, setting, recipe):
                places[finding.uuid] = finding.target_xy
        return [Reply(places[one.uuid], one.confidence, one.state) for one in placed.placements]

    return answer


def encode_question(
    question: Question, setting: Setting, recipe: Recipe, *, parts: int = 1
) -> tuple[list[Reference], FeatureMap]:
    """Every source with the marks that it shows, and the target; one forward each, or woven of `parts` x `parts`."""

    def encoded(picture: ImageU8) -> FeatureMap:
        if parts > 1:
            return _woven(picture, setting, parts)
        return encode_view(picture, setting.encoder.prepared(recipe), recipe)

    target_map = encoded(question.target)
    references = []
    views = zip(question.sources, question.source_points, question.source_masks, strict=True)
    for number, (source, points, inside) in enumerate(views):
        shown = np.flatnonzero(~np.isnan(points[:, 0]))
        source_map = encoded(source)
        uuids = tuple(question.uuids[k] for k in shown)
        mask = patches_inside(inside, source_map)
        references.append(Reference(str(number), source_map, uuids, torch.from_numpy(points[shown]), mask))
    return references, target_map


def _look(
    reference: Reference, uuids: Sequence[str], target_map: FeatureMap, question: Question, recipe: Recipe
) -> list[Finding]:
    """Some marks of a reference, looked for in the target."""
    rows = [reference.uuids.index(uuid) for uuid in uuids]
    return locate_points(
        reference.map,
        target_map,
        reference.points_source[rows],
        uuids=uuids,
        image_size=recipe.image_size,
        source_mask=reference.mask,
        target_mask=patches_inside(question.target_mask, target_map),
        peak=recipe.peak,
    )


def _closer(
    findings: Sequence[Finding],
    number: int,
    reference: Reference,
    target_map: FeatureMap,
    question: Question,
    setting: Setting,
    recipe: Recipe,
) -> list[Finding]:
    """A second look at the places of findings of source `number`."""
    return look_closer(
        findings,
        question.sources[number],
        reference.map,
        question.target,
        target_map,
        setting.encoder.prepared(recipe),
        recipe,
        source_mask=reference.mask,
    )


def as_mask(inside: Array | None) -> Mask | None:
    """A drawn mask as one that was read from a file."""
    return None if inside is None else Mask(torch.from_numpy(inside), Path("drawn.mask.png"), "")


def patches_inside(inside: Array | None, of: FeatureMap) -> torch.Tensor | None:
    """Which patches of a map show the body."""
    mask = as_mask(inside)
    return None if mask is None else mask.over(of.grid)


METHODS: dict[str, Method] = {
    "chance": chance,
    "copy coordinates": copy_coordinates,
    "mel argmax": mel_argmax,
    "mel progressive": mel_progressive,
    "single": ours_single(),
    "batch": ours_batch(),
    "views": ours_views,
    "together": ours_together(),
}
"""Methods that are always compared, by name."""

CENTRES: Sequence[str] = ("mel argmax",)
"""Methods that answer with a patch centre of the plain grid, and so can never be nearer than the oracle."""

OPTIONS: dict[str, Method] = {
    "soft-argmax": ours_batch(peak="soft-argmax"),
    "windows": ours_batch(windows=192),
    "windows alone": ours_batch(windows=192, global_view=False),
    "jitter 4": ours_batch(jitter=4),
    "zoom 2": ours_batch(zoom=2.0),
    "woven 4": ours_woven(parts=4),
    "together, zoom 2": ours_together(zoom=2.0, candidates=1),
    "together, woven 2": ours_together(parts=2),
    "together, woven 4": ours_together(parts=4),
    "together, woven 4, zoom 2": ours_together(parts=4, zoom=2.0, candidates=1),
}
"""Each option of the recipe by itself, on all marks of a picture, to be held against `batch`, and mixes with
`together`. `woven` is no option yet: jitter over the whole target."""

TURNS: dict[str, Method] = {"flip, rot90": ours_single(turns=("flip", "rot90"))}
"""Turns are chosen for each mark, so they are held against `single`."""

POSITION: dict[str, Method] = {"debias 1": ours_batch(debias=1), "debias 5": ours_batch(debias=5)}
"""Of encoders whose tokens know where they are."""

LAYERS: dict[str, Method] = {"layers 5, 8, 11": ours_batch(layers=(5, 8, 11)), "layers 2, 5": ours_batch(layers=(2, 5))}
"""Of Vision Transformers of 12 blocks."""
