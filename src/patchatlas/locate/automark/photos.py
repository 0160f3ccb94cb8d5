"""A photo of a session as feature maps: from the cache where they are there, else encoded and kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.turns import Turn, turned
from patchatlas.io.images import MAX_PIXELS, Picture, read_picture
from patchatlas.io.masks import Mask, read_mask
from patchatlas.io.reasons import PictureError
from patchatlas.locate.automark.cache import Facts, FeatureCache, facts_of, halved
from patchatlas.locate.automark.plan import Reference, Target
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.recipe import Recipe
from patchatlas.spec import EncoderSpec


@dataclass(frozen=True, eq=False)
class Laid:
    """A photo, laid down one way.

    Attributes:
        turn: which way.
        map: its features, fp16.
        mask: patches that count; `None` if all do.
    """

    turn: Turn
    map: FeatureMap
    mask: Bool[Tensor, "rows cols"] | None


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo ready to be searched, or to search from.

    Attributes:
        laid: upright first, then as the turns were asked for.
        mask_sha256: of its mask file, `None` if it has none.
    """

    laid: tuple[Laid, ...]
    mask_sha256: str | None


def mask_of(photo: Reference | Target, *, max_pixels: int = MAX_PIXELS) -> Mask | None:
    """The mask beside a photo.

    Raises:
        FormatError: it cannot be used.
    """
    return read_mask(photo.path, size_hw=photo.size_hw, max_pixels=max_pixels)


def facts_about(
    photo: Reference | Target, mask: Mask | None, spec: EncoderSpec, recipe: Recipe, *, turn: Turn = "upright"
) -> tuple[Frame, Facts]:
    """What will be drawn of a photo, and all that its map depends on.

    Raises:
        ShapeError: see `geometry.buckets.fit`.
    """
    frame = turned(fit(photo.size_hw, long_side=recipe.image_size, patch=spec.patch), turn)
    sha256 = None if mask is None else mask.sha256
    return frame, facts_of(picture=photo.sha256, mask=sha256, spec=spec, recipe=recipe, frame=frame)


def open_photo(
    photo: Reference | Target,
    mask: Mask | None,
    encoder: Encoder,
    recipe: Recipe,
    cache: FeatureCache,
    *,
    turns: Sequence[Turn] = ("upright",),
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """The maps of a photo.

    Args:
        photo: which, as planned.
        mask: its mask, if it has one.
        encoder: as `locate.encoding.prepare` gives it.
        recipe: how to encode.
        cache: where maps are kept.
        turns: ways to lay it down.
        max_pixels: larger photos are refused.

    Raises:
        PictureError: it cannot be read, or its bytes have changed since the plan was made.
        ShapeError: it is too small, or its mask leaves no patch.
    """
    picture: Picture | None = None
    laid = []
    for turn in turns:
        frame, facts = facts_about(photo, mask, encoder.spec, recipe, turn=turn)
        features = cache.read(facts)
        if features is None:
            picture = picture or read_planned(photo, max_pixels=max_pixels)
            features = halved(encode_view(picture.pixels, encoder, recipe, frame=frame))
            cache.keep(facts, features)
        counts = None if mask is None else mask.over(features.grid)
        if counts is not None and not bool(counts.any()):
            raise ShapeError(f"the mask of {photo.path} leaves no patch to look at; mend or remove it")
        laid.append(Laid(turn, features, counts))
    return Photo(tuple(laid), None if mask is None else mask.sha256)


def read_planned(photo: Reference | Target, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The pixels of a photo, if it is still the one that was planned for.

    Raises:
        PictureError: it cannot be read, or its bytes have changed since.
    """
    picture = read_picture(photo.path, max_pixels=max_pixels)
    if picture.sha256 != photo.sha256:
        raise PictureError(f"{photo.path} changed while the session ran; run it again", reason="changed")
    return picture
