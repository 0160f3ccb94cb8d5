"""A record becomes the pixels that the encoder sees: read, checked, and drawn from the file in one resample."""

from functools import lru_cache
from pathlib import Path

from jaxtyping import Float32
from torch import Tensor

from patchatlas.datasets.placement import encoder_frame, place, require_bucket
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.scan import source_path
from patchatlas.geometry.buckets import BucketRule, Hw
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.images import read_picture
from patchatlas.io.manifest import Record
from patchatlas.io.reasons import PictureError


def draw(record: Record, input_dir: Path, patch: Hw, recipe: Recipe, *, max_pixels: int) -> Float32[Tensor, "3 h w"]:
    """The whole bucket of a record at the size rounded to the patch, in 0..1; nothing is cropped after that.

    Args:
        record: one with a bucket.
        input_dir: where its picture lies.
        patch: (h, w).
        recipe: how it is read, and the table and rule that its bucket must come from.
        max_pixels: larger pictures are refused.

    Raises:
        PictureError: the picture cannot be used, or is not the one that the record was made from.
        FormatError: the bucket of the record is not that of the table and rule.
    """
    placed, frame = _placed(record.width, record.height, record.exif_orientation, recipe.buckets, recipe.rule, patch)
    if _place(record) != _place(placed):
        require_bucket(record, recipe.buckets, rule=recipe.rule)
    path = source_path(record.image_path, input_dir)
    assert placed.resized is not None, "it was placed"
    enough = placed.resized[::-1] if recipe.decode == "fast" else None
    try:
        picture = read_picture(path, max_pixels=max_pixels, at_least_hw=enough)
    except PictureError as error:  # named as the manifest names it, which is the same on every machine
        raise PictureError(str(error).replace(str(path), record.image_path), reason=error.reason) from error
    if record.sha256 is not None and picture.sha256 != record.sha256:
        raise PictureError(
            f"{record.image_path} has other bytes than when the manifest was made; run with --pass-filter migrate",
            reason="changed",
        )
    return resample_picture(picture.pixels, frame.then(picture.frame.inverse()))


@lru_cache(maxsize=4096)
def _placed(
    width: int | None, height: int | None, orientation: int | None, table: tuple[Hw, ...], rule: BucketRule, patch: Hw
) -> tuple[Record, Frame]:
    """Where pictures of this size lie in their bucket, and what the encoder sees, drawn from the raster in the file."""
    blank = Record(image_path="blank", image_id="blank", width=width, height=height, exif_orientation=orientation)
    placed = place(blank, table, rule=rule)
    return placed, encoder_frame(placed, patch, plane="stored")


def _place(record: Record) -> tuple[object, ...]:
    return record.aspect_bucket, record.resized, record.crop
