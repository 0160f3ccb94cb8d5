"""Encode pictures again and compare with what is stored; replace single patches and see which row answers.

What is on the disk is thus tied to the pixels by experiment, in two steps: the stored rows are the tokens that the
encoder gives for the picture, in this order; and at this size the token that answers when a patch is replaced is the
one in the row of that patch. The second step is taken on noise, as `patchatlas.probe` takes it: beside an even surface
of a photograph a replaced patch outshouts whatever else an encoder with a wide view (dense SIFT) sees.

Axes: n patches, d features, c h w latents.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from patchatlas.datasets.build.drawing import draw
from patchatlas.datasets.build.passes import LATENTS
from patchatlas.datasets.latents import LatentEncoder
from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.datasets.scan import source_path
from patchatlas.datasets.verify.expected import recipe_of
from patchatlas.datasets.verify.explain import Case, distance, explain_cls, explain_patches, relative
from patchatlas.datasets.verify.faults import Fault
from patchatlas.datasets.verify.report import Finding, Probed
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import InputError, PatchAtlasError
from patchatlas.geometry.area import resample_area
from patchatlas.geometry.buckets import Hw
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.codecs import StoredDtype
from patchatlas.io.feature_store import FeatureStore, SetHeader
from patchatlas.io.images import MAX_PIXELS, read_picture
from patchatlas.io.manifest import FeatureEntry, Record
from patchatlas.probe.responses import locate, measure

ALLOWED: dict[StoredDtype, float] = {"fp32": 1e-4, "fp16": 1e-3, "bf16": 6e-3, "int8": 3e-2}
"""Relative difference that storing explains: half the step of the format, int8 by its measured 1 - cos of 3.8e-5 with
room for outlying channels; fp32 by kernels that add in another order for another batch."""

ARITHMETIC = {"fp32": 0.0, "bf16": 3e-2}
"""Relative difference that arithmetic explains, where batches of other sizes take other kernels."""

HITS = 0.9
"""Least part of the replaced patches that must be answered at their own place."""

NEAR = 1.0
"""Patches, along each axis, from a replaced patch to where it is answered, at most. Dense SIFT, which reads 24 patches
across, strays by up to 0.9 in one of ten, and by less than 0.1 as a rule."""

SHIFT = 0.5
"""A median stray of more patches than this, along any axis, is a shift."""

SAMPLED = 16
"""Rows of a picture that are kept to recognise it in the files of another."""

OnProgress = Callable[[int, int], None]


@dataclass
class _Tally:
    strays: list[Tensor] = field(default_factory=list)
    worst: float = 0.0
    grids: set[Hw] = field(default_factory=set)


def probe_stored(
    records: Sequence[Record],
    store: FeatureStore,
    *,
    input_dir: Path,
    encoder: Encoder,
    count: int,
    first: Collection[str] = (),
    cells: int = 8,
    batch: int = 4,
    max_pixels: int = MAX_PIXELS,
    generator: torch.Generator | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[list[Finding], Probed]:
    """Encode `count` pictures again, spread over all buckets, and prove or disprove what is stored of them.

    Args:
        records: of the manifest.
        store: where the features lie.
        input_dir: where the pictures lie.
        encoder: the one that made them, with their layer, norm and arithmetic.
        count: pictures.
        first: ids of pictures that are to be among them, as far as `count` allows.
        cells: patches that are replaced at each size of input that occurs.
        batch: inputs a forward while patches are replaced.
        max_pixels: larger pictures are refused.
        generator: draws pictures, cells and noise; one with seed 0 without it.
        on_progress: called with pictures done and pictures in all.

    Raises:
        InputError: no picture has features of this encoder's family.
        StampError: the encoder is not the one that made the features; the facts that differ are named.
    """
    generator = generator or torch.Generator().manual_seed(0)
    kind = f"{encoder.spec.family}_patches"
    header, recipe = _the_set(store, kind)
    header.stamp.require(stamp_for(encoder.spec, recipe), what=f"features ({kind} on the disk and this encoder's)")
    allowed = ALLOWED[recipe.storage] + ARITHMETIC[encoder.spec.dtype]
    chosen = choose(records, kind, count, generator, first=first)
    tally, findings, samples = _Tally(), [], {}
    stored_rows: dict[str, Tensor] = {}
    for done, record in enumerate(chosen, start=1):
        try:
            found, sample, rows = _probe_one(
                record,
                kind,
                store,
                recipe,
                encoder,
                input_dir=input_dir,
                allowed=allowed,
                cells=cells,
                batch=batch,
                max_pixels=max_pixels,
                generator=generator,
                tally=tally,
            )
            findings += found
            samples[record.image_id], stored_rows[record.image_id] = sample, rows
        except PatchAtlasError as error:
            findings.append(_cannot(record, kind, error))
        if on_progress is not None:
            on_progress(done, len(chosen))
    findings = [_recognised(finding, samples, stored_rows, allowed) for finding in findings]
    strays = torch.cat(tally.strays) if tally.strays else torch.zeros(0, 2, dtype=torch.float64)
    hits = int((strays.abs() <= NEAR).all(dim=1).sum())
    if len(strays) and (hits < HITS * len(strays) or bool((strays.nanquantile(0.5, dim=0).abs() > SHIFT).any())):
        sentence = (
            f"{hits} of {len(strays)} replaced patches were answered by {encoder.spec.name} within a patch of their "
            f"own place, the median is off by {strays.nanquantile(0.5, dim=0).tolist()} (rows, columns)."
        )
        findings.append(Finding(fault="misaligned_encoder", sentence=sentence, kind=kind))
    return findings, Probed(
        records=tuple(record.image_id for record in chosen),
        cells=len(strays),
        hits=hits,
        worst=tally.worst,
        allowed=allowed,
    )


def probe_latents(
    records: Sequence[Record],
    store: FeatureStore,
    *,
    input_dir: Path,
    vae: LatentEncoder,
    count: int,
    first: Collection[str] = (),
    max_pixels: int = MAX_PIXELS,
    generator: torch.Generator | None = None,
) -> list[Finding]:
    """Encode the latents of `count` pictures again, those of the ids in `first` before others, and compare.

    Raises:
        InputError: no picture has latents.
        StampError: the autoencoder is not the one that made the latents.
    """
    header, recipe = _the_set(store, LATENTS)
    header.stamp.require(stamp_for(vae.spec, recipe, **vae.facts), what="latents (on the disk and this autoencoder's)")
    allowed = ALLOWED[recipe.storage] + ARITHMETIC[vae.spec.dtype]
    patch = (vae.spec.patch[0], vae.spec.patch[1])
    findings = []
    generator = generator or torch.Generator().manual_seed(0)
    for record in choose(records, LATENTS, count, generator, first=first):
        entry = record.features[LATENTS]
        try:
            stored = store.read(entry)
            given = vae(draw(record, input_dir, patch, recipe, max_pixels=max_pixels)[None])[0].cpu()
        except PatchAtlasError as error:
            findings.append(_cannot(record, LATENTS, error))
            continue
        off = relative(stored, given)
        if off <= allowed:
            continue
        other = vae.toggled()(draw(record, input_dir, patch, recipe, max_pixels=max_pixels)[None])[0].cpu()
        fault: Fault = "latents_unscaled" if relative(stored, other) <= 3 * allowed else "unlike"
        why = (
            "they were not scaled as their stamp says" if fault == "latents_unscaled" else "for no reason that is known"
        )
        findings.append(_finding(fault, record, LATENTS, entry, off, allowed, why))
    return findings


def vae_options(store: FeatureStore) -> dict[str, Any]:
    """Arithmetic and scaling of the stored latents, as options of `load_vae`.

    Raises:
        InputError: there is not exactly one set of latents.
    """
    header, _ = _the_set(store, LATENTS)
    dtype = "fp32" if header.spec is None else header.spec.dtype
    return {"dtype": dtype, "scaled": bool(dict(header.stamp.facts).get("latents_scaled", True))}


def choose(
    records: Sequence[Record], kind: str, count: int, generator: torch.Generator, *, first: Collection[str] = ()
) -> list[Record]:
    """Pictures with a kind of feature: `first` before others, one of each bucket in turn, at random within it.

    Raises:
        InputError: there is none.
    """
    by_bucket = defaultdict(list)
    for record in records:
        if record.status == "ok" and kind in record.features and record.aspect_bucket is not None:
            by_bucket[record.aspect_bucket].append(record)
    if not by_bucket:
        raise InputError(f"no picture has {kind}; give the encoder that made the features")
    shuffled = [
        [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
        for _, members in sorted(by_bucket.items())
    ]
    turns = [record for turn in zip_longest(*shuffled) for record in turn if record is not None]
    return sorted(turns, key=lambda record: record.image_id not in first)[:count]


def _the_set(store: FeatureStore, kind: str) -> tuple[SetHeader, Recipe]:
    sets = store.sets(kind)
    if len(sets) != 1:
        names = ", ".join(folder.name for folder in sets) or "none"
        raise InputError(f"the probe needs one set of {kind} in {store.derived_dir}, there are: {names}")
    header = store.header(sets[0])
    return header, recipe_of(header.stamp)


def _probe_one(
    record: Record,
    kind: str,
    store: FeatureStore,
    recipe: Recipe,
    encoder: Encoder,
    *,
    input_dir: Path,
    allowed: float,
    cells: int,
    batch: int,
    max_pixels: int,
    generator: torch.Generator,
    tally: _Tally,
) -> tuple[list[Finding], Tensor, Tensor]:
    """Findings of one picture, and rows of what the encoder gives and of what is stored, to compare with others."""
    assert record.aspect_bucket is not None
    entry = record.features[kind]
    patch = (encoder.spec.patch[0], encoder.spec.patch[1])
    pixels = draw(record, input_dir, patch, recipe, max_pixels=max_pixels)
    tokens = _on_cpu(encoder(pixels[None].to(encoder.device)))
    given, stored = tokens.patches[0], store.read(entry)
    grid = (pixels.shape[1] // patch[0], pixels.shape[2] // patch[1])
    if stored.shape != given.shape:
        off, why = float("inf"), f"{tuple(stored.shape)} is stored, the encoder gives {tuple(given.shape)}"
        return [_finding("unlike", record, kind, entry, off, allowed, why)], given[:0], given[:0]
    sample = torch.linspace(0, len(given) - 1, SAMPLED).long()
    off = relative(stored, given)
    tally.worst = max(tally.worst, off)
    picture = read_picture(source_path(record.image_path, input_dir), max_pixels=max_pixels)
    case = Case(pixels, tokens, grid, picture, record.aspect_bucket)
    findings = []
    if off > allowed:
        explained = explain_patches(stored, case, encoder, allowed=allowed)
        why = "for no reason that is known" if explained is None else explained.sentence
        findings.append(
            _finding("unlike" if explained is None else explained.fault, record, kind, entry, off, allowed, why)
        )
    elif grid not in tally.grids:
        tally.grids.add(grid)
        size = (pixels.shape[1], pixels.shape[2])
        tally.strays.append(_strays(encoder, size, cells=cells, batch=batch, generator=generator))
    findings += _beside(record, kind, store, case, encoder, allowed)
    return findings, given[sample], stored[sample]


def _beside(
    record: Record, kind: str, store: FeatureStore, case: Case, encoder: Encoder, allowed: float
) -> Iterator[Finding]:
    """CLS, registers and resampled patches against those of the same forward."""
    family = kind.removesuffix("_patches")
    entry = record.features.get(f"{family}_cls")
    plain = ALLOWED["fp32"] + ARITHMETIC[encoder.spec.dtype]
    if entry is not None and case.tokens.cls is not None:
        stored, given = store.read(entry), case.tokens.cls[0]
        if relative(stored, given) > plain:
            why = explain_cls(stored, case, encoder)
            yield _finding("cls_of_other_input", record, f"{family}_cls", entry, relative(stored, given), plain, why)
    entry = record.features.get(f"{family}_registers")
    if entry is not None and case.tokens.registers is not None:
        stored, given = store.read(entry), case.tokens.registers[0]
        if relative(stored, given) > plain:
            why = "they are not of the patches' forward"
            yield _finding("unlike", record, f"{family}_registers", entry, relative(stored, given), plain, why)
    entry = record.features.get(f"{family}_latent_patches")
    if entry is not None and entry.grid is not None:
        patches = case.tokens.patches[0].reshape(*case.grid, -1)
        stored, given = store.read(entry), resample_area(patches, entry.grid).reshape(-1, patches.shape[2])
        if stored.shape != given.shape or relative(stored, given) > allowed:
            why = "they are not the patches resampled by area"
            yield _finding("unlike", record, f"{family}_latent_patches", entry, relative(stored, given), allowed, why)


def _strays(
    encoder: Encoder, size: Hw, *, cells: int, batch: int, generator: torch.Generator
) -> Float64[Tensor, "m 2"]:
    """From replaced patches of noise of this size to where each is answered, in patches; NaN where none answers."""
    grid = PatchGrid.on(Frame.whole(size), encoder.spec.patch)
    chosen = torch.randperm(grid.count, generator=generator)[:cells].tolist()
    changes = measure(encoder, grid, cells=chosen, batch=batch, generator=generator, on_batch=lambda _: None)
    answers = locate(changes, chosen, grid.shape)
    return (answers.place - answers.cells).masked_fill(answers.silent[:, None], torch.nan)


def _recognised(finding: Finding, given: dict[str, Tensor], stored: dict[str, Tensor], allowed: float) -> Finding:
    """Name the picture whose features lie in the file of another, if it was probed too."""
    mine = stored.get(finding.record or "")
    if finding.fault != "unlike" or mine is None or len(mine) == 0:
        return finding
    for name, rows in given.items():
        if name != finding.record and rows.shape == mine.shape and distance(mine, rows) <= 3 * allowed:
            sentence = f"The features of {finding.record} are those of {name}."
            return Finding(
                fault="other_picture", sentence=sentence, record=finding.record, kind=finding.kind, file=finding.file
            )
    return finding


def _finding(
    fault: Fault, record: Record, kind: str, entry: FeatureEntry, off: float, allowed: float, why: str
) -> Finding:
    sentence = (
        f"{kind} of {record.image_id} differ from what the encoder gives by {off:.2g} ({allowed:.2g} allowed): {why}."
    )
    evidence = {"difference": off, "allowed": allowed}
    return Finding(
        fault=fault, sentence=sentence, record=record.image_id, kind=kind, file=entry.file, evidence=evidence
    )


def _cannot(record: Record, kind: str, error: PatchAtlasError) -> Finding:
    return Finding(
        fault="source_unusable",
        sentence=f"{record.image_path} could not be encoded again: {error}.",
        record=record.image_id,
        kind=kind,
    )


def _on_cpu(tokens: Tokens) -> Tokens:
    return Tokens(
        tokens.patches.float().cpu(),
        None if tokens.cls is None else tokens.cls.float().cpu(),
        None if tokens.registers is None else tokens.registers.float().cpu(),
    )
