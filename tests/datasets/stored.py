"""A small data set with stored features, made by a fake encoder on ramp pictures, without files of pictures."""

from dataclasses import replace
from pathlib import Path

import torch

from patchatlas.datasets.placement import encoder_frame, place
from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder, ramp
from patchatlas.io.codecs import encode_array
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import Record, RecordError, write_manifest

TABLE = ((64, 64), (64, 96), (96, 64), (48, 80))
SIZES = ((90, 120), (120, 90), (70, 70), (50, 83), (130, 75), (91, 123))


def record_of(h: int, w: int, image_id: str = "a") -> Record:
    """A picture in its bucket, without features."""
    return place(Record(image_path=f"{image_id}.jpg", image_id=image_id, height=h, width=w), TABLE)


def store_ramp(store: FeatureStore, record: Record, encoder: FakeEncoder, recipe: Recipe) -> Record:
    """Encode a ramp of the record's size and store patches, CLS and registers, as a build does."""
    stamp = stamp_for(encoder.spec, recipe)
    frame = encoder_frame(record, (encoder.patch[0], encoder.patch[1]))
    encoded = encode(ramp((record.height, record.width)), encoder, frame=frame)
    latents = torch.linspace(-1, 1, 4 * 6 * 8).reshape(4, 6, 8)
    made = {
        "fake_patches": (encoded.tokens, recipe.storage, encoded.grid.shape, encoder.spec.dim),
        "fake_cls": (encoded.cls, "fp32", None, encoder.spec.dim),
        "fake_registers": (encoded.registers, "fp32", None, encoder.spec.dim),
        "vae_latents": (latents, "fp32", (6, 8), 4),
    }
    entries = {}
    for kind, (values, dtype, grid, dim) in made.items():
        store.open_set(kind, stamp, spec=encoder.spec, config={})
        content = encode_array(values, dtype)
        entries[kind] = store.write(kind, stamp, record.image_id, content, grid=grid, dim=dim, dtype=dtype)
    return replace(record, features=entries)


def stored_ramps(folder: Path, recipe: Recipe | None = None, *, skipped: int = 0) -> list[Record]:
    """Records and `derived/` of `SIZES`, with `dataset.jsonl` beside it; some more pictures are skipped ones."""
    recipe = recipe or Recipe(buckets=TABLE, storage="fp32")
    with FeatureStore(folder / "derived") as store:
        records = [
            store_ramp(store, record_of(h, w, f"image-{k}"), FakeEncoder(), recipe) for k, (h, w) in enumerate(SIZES)
        ]
    error = RecordError(type="truncated", message="it ends early")
    for k in range(skipped):
        records.append(Record(image_path=f"bad-{k}.jpg", image_id=f"bad-{k}", status="skipped", error=error))
    write_manifest(folder / "dataset.jsonl", records)
    return records
