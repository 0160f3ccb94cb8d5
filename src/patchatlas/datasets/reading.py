"""Stored features as a `FeatureMap`, each token at its place in the source picture.

Axes: n patches (row-major over the grid), d features, r registers, c h w latents.
"""

from collections.abc import Iterable

from jaxtyping import Float32
from torch import Tensor

from patchatlas.datasets.placement import encoder_frame
from patchatlas.errors import FormatError, InputError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import Hw
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.feature_store import FeatureStore, SetHeader, require_own
from patchatlas.io.manifest import FeatureEntry, Record

PATCHES = "_patches"


def feature_map(
    record: Record, store: FeatureStore, kind: str = "dinov3_patches", *, check_hash: bool = False
) -> FeatureMap:
    """The patches of a picture, with CLS and registers where they are stored, as `dense.encode` would give them.

    The source of its frame is the upright picture, so points of the picture can be asked for; what was cut off to fit
    the bucket has no patch. The map carries the stamp of the set, which says more than that of `dense.encode` (buckets,
    storage): compare stored maps with stored maps.

    Args:
        record: from the manifest.
        store: where the features lie.
        kind: one that ends in `_patches`.
        check_hash: also compare the SHA-256 of each file.

    Raises:
        InputError: the record has no such feature, or there is no such file.
        StampError: a file was made in another way than its set, or CLS and registers in another way than the patches.
        FormatError: a file is not what the manifest says, its grid is not the one that the record's bucket has, or the
            set was not made by an encoder.
    """
    if not kind.endswith(PATCHES):
        raise InputError(f"{kind} has no patches to place; give a kind that ends in {PATCHES}")
    entry = entry_of(record, kind)
    path = store.path(entry)
    header = store.header(path.parent)
    spec = header.spec
    if spec is None or len(spec.patch) != 2:
        raise FormatError(
            f"{path.parent} does not say which encoder for pictures made it, so its patches have no place"
        )
    cell = cell_of(header)
    grid = PatchGrid.on(encoder_frame(record, cell), cell)
    if entry.grid != grid.shape:
        raise FormatError(
            f"{record.image_path}: the manifest says a grid of {entry.grid} (rows, columns), its bucket and patches "
            f"give {grid.shape}; build again"
        )
    beside = {}
    for name in ("cls", "registers"):
        beside_kind = f"{kind.removesuffix(PATCHES)}_{name}"
        if beside_kind in record.features:
            other = entry_of(record, beside_kind)
            header.stamp.require(store.stamp_of(store.path(other).parent), what=f"patches and {name}")
            beside[name] = store.read(other, check_hash=check_hash)
    return FeatureMap(store.read(entry, check_hash=check_hash), grid, spec, header.stamp, **beside)


def entry_of(record: Record, kind: str) -> FeatureEntry:
    """What the manifest says of one feature of a picture.

    Raises:
        InputError: the picture was skipped, or has no such feature; the message names those it has.
        FormatError: by its name, the file is of another picture or kind.
    """
    if kind not in record.features:
        why = f" (it was skipped: {record.error.message})" if record.error is not None else ""
        there = ", ".join(sorted(record.features)) or "none"
        raise InputError(f"{record.image_path} has no {kind}{why}; it has: {there}")
    require_own(record.features[kind], kind, record.image_id)
    return record.features[kind]


def only_patches(records: Iterable[Record]) -> str:
    """The kind of patches that a manifest has, where it has one.

    Raises:
        InputError: it has none, or several; the message names them.
    """
    kinds = sorted({kind for record in records for kind in record.features if kind.endswith(PATCHES)})
    if len(kinds) != 1:
        raise InputError(f"the manifest has {' and '.join(kinds) or 'no patches'}; name what to take with --kind")
    return kinds[0]


def as_tokens(values: Float32[Tensor, "..."]) -> Float32[Tensor, "n d"]:
    """Stored features as vectors: tokens (n, d) as they are, CLS (d) as one, latents (c, h, w) as one a pixel."""
    if values.ndim == 1:
        return values[None]
    return values.flatten(1).T if values.ndim == 3 else values


def cell_of(header: SetHeader) -> Hw:
    """Pixels (h, w) to a cell of the grid: the patch, or the latent token to which patches were resampled."""
    assert header.spec is not None
    facts = dict(header.stamp.facts)
    if "latent_stride" in facts and "latent_patch" in facts:
        side = int(str(facts["latent_stride"])) * int(str(facts["latent_patch"]))
        return side, side
    return header.spec.patch[0], header.spec.patch[-1]
