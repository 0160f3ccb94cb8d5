"""Rewrite weights of any layout that can be read as one file of our own, which loads to the same tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchatlas.encoders import checkpoint, hub
from patchatlas.encoders.catalogue import find_by_sha256
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.keymaps.own import Header
from patchatlas.encoders.loading import THROUGH_TRANSFORMERS, licence_of, normalisation, translate
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.precision import TORCH_DTYPES
from patchatlas.encoders.vit import dtype_of
from patchatlas.errors import InputError, UsageError, WeightsError


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A file that was written.

    Attributes:
        path: where it is.
        header: what it says of itself.
        sha256: of its bytes.
        size_bytes: its length.
    """

    path: Path
    header: Header
    sha256: str
    size_bytes: int


def convert(
    name_or_path: str | Path,
    out: str | Path,
    *,
    dtype: Literal["fp32", "bf16"] = "fp32",
    heads: int | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write weights, named as for `load_encoder`, as one `.safetensors` file of our layout.

    The same weights give the same bytes. A file of our own that is converted again keeps saying what it first came
    from.

    Args:
        out: file to write, ending in `.safetensors`.
        dtype: how numbers are stored. `bf16` halves the linears of the blocks, which is what the encoder does with them
            in bf16: the file then gives the same tokens in bf16, and coarser ones in fp32. The rest stays in float32.
        heads: attention heads, for checkpoints that do not tell.
        overwrite: replace `out` if it is there.

    Raises:
        UsageError: `out` has another suffix, is there already, or is what is to be converted.
        InputError: the folder of `out` does not exist, or `out` is a folder.
        WeightsError: weights that are absent, not whole, not known, or not a ViT of ours.
    """
    out = Path(out)
    _check_out(out, overwrite=overwrite)
    where = resolve(name_or_path)
    if where.bundled is not None:
        raise WeightsError(f"bundled:{where.bundled} has no weights to convert; use it by its name")
    path = where.path if where.path is not None else hub.fetch(str(where.hub_id))
    if out.exists() and any(out.samefile(file) for file in checkpoint.weight_files(path)):
        raise UsageError(f"{out} is what is to be converted; give OUT another name")
    model_type = checkpoint.read_json(checkpoint.folder_of(path), "config.json").get("model_type")
    if model_type in THROUGH_TRANSFORMERS:
        raise WeightsError(
            f"{name_or_path} is a {model_type}, which transformers runs: our file format holds DINOv2, DINOv3 and 3-D "
            "ViTs only. Keep the folder as it is; its path is a name of the encoder"
        )
    weights = checkpoint.read(path)
    state, config = translate(weights, heads=heads)
    entry = where.entry or find_by_sha256(weights.sha256)
    told = own.read_header(weights.metadata) if own.fits(weights.metadata) else None
    mean, std = normalisation(weights, config, entry, name=f"{name_or_path}/{path.name}")
    header = Header(
        config=config,
        mean=mean,
        std=std,
        name=entry.name if entry else told.name if told else Path(name_or_path).name,
        licence=licence_of(weights, entry, told),
        source=told.source if told and told.source else where.hub_id or path.name,
        source_sha256=told.source_sha256 if told and told.source_sha256 else weights.sha256,
        input=told.input if told else None,
        card=told.card if told else None,
    )
    stored = {key: value.to(dtype_of(key, TORCH_DTYPES[dtype])) for key, value in state.items()}
    own.write(out, stored, header)
    return Converted(path=out, header=header, sha256=checkpoint.digest([out]), size_bytes=out.stat().st_size)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse before anything is read."""
    if out.suffix != ".safetensors":
        raise UsageError(f"OUT {out} ends in {out.suffix or 'no suffix'}; it must end in .safetensors")
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder; name a file")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: the folder {out.parent} does not exist; create it first")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already; pass --overwrite to replace it, or choose another name")
