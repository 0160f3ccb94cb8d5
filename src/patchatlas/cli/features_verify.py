"""Check stored features: files, hashes, grids, numbers, stamps; with --probe also that they sit where their pixels are.

Exit code 0: nothing found. 3: warnings only, or all errors were requeued by --fix. 4: errors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress
from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.datasets.verify.report import Finding, Report
    from patchatlas.datasets.verify.requeue import Requeued
    from patchatlas.encoders.protocol import Encoder
    from patchatlas.io.feature_store import FeatureStore

LISTED = 5
"""Findings of one fault that are listed for people; --format json has them all."""


class Config(Output):
    """What `patchatlas features verify` is asked to do."""

    manifest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]
    """Manifest of the features."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the features; `derived` beside the manifest without it."""
    input_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the pictures; with it they are compared with the manifest, and --probe needs it."""
    quick: bool = False
    """Look at sizes and headers only, not at hashes and numbers."""
    latent_stride: Annotated[int | None, Field(gt=0)] = None
    """Pixels to a latent pixel: check that patches meet the tokens of a latent model."""
    latent_patch: Annotated[int, Field(gt=0)] = 2
    """Latent pixels to a latent token, with --latent-stride."""
    probe: Annotated[int, Field(ge=0)] = 0
    """Encode so many pictures again (those of equal features first), compare, replace patches to see what answers."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Encoder that made the features, for --probe."""
    latent_encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Autoencoder that made the latents, for --probe."""
    cells: Annotated[int, Field(gt=0)] = 8
    """Patches that --probe replaces at each size of input."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the pictures, patches and noise of --probe."""
    fix: bool = False
    """Take wrong features out of the manifest and move their files to _bad; `features build` then makes them again."""
    max_pixels: Annotated[int | None, Field(gt=0)] = None
    """Larger pictures cannot be compared; as given to `features build`."""
    workers: Annotated[int, Field(gt=0)] = 4
    """Threads that read files."""


def run(config: Config) -> int:
    """Verify, probe, requeue, report; see the exit codes above.

    Raises:
        UsageError: --probe without pictures or encoder.
        InputError: there is no such manifest or folder, or the encoder is not the one that made the features.
        WeightsError: an encoder that cannot be had.
        ResourceError: with --fix, a build is at work.
    """
    if config.probe and (config.input_dir is None or not (config.encoder or config.latent_encoder)):
        raise UsageError("--probe needs --input-dir and --encoder (or --latent-encoder), to encode pictures again")
    if not config.probe and (config.encoder or config.latent_encoder):
        raise UsageError("--encoder and --latent-encoder are for --probe; give it a number of pictures")

    from patchatlas.cli.main import BAD_INPUT, OK, SKIPPED
    from patchatlas.datasets.verify.requeue import requeue
    from patchatlas.datasets.verify.verify import verify
    from patchatlas.io.images import MAX_PIXELS

    derived = config.derived_dir or config.manifest.parent / "derived"
    with progress() as bar:
        task = bar.add_task("verifying")
        report = verify(
            config.manifest,
            derived,
            input_dir=config.input_dir,
            values=not config.quick,
            latent_stride=config.latent_stride,
            latent_patch=config.latent_patch,
            max_pixels=config.max_pixels or MAX_PIXELS,
            workers=config.workers,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if config.probe:
        report = _probed(config, derived, report)
    requeued = requeue(report.findings, config.manifest, derived) if config.fix else None
    data = report.to_json()
    if requeued is not None:
        data["requeued"] = {"records": list(requeued.records), "files": list(requeued.files)}
    emit(config, human=describe(report, requeued), data=data)
    left: Sequence[Finding] = report.findings if requeued is None else requeued.left
    if any(finding.severity == "error" for finding in left):
        return BAD_INPUT
    return OK if report.healthy else SKIPPED


def _probed(config: Config, derived: Path, report: "Report") -> "Report":
    import torch

    from patchatlas.datasets.latents import load_vae
    from patchatlas.datasets.verify.probe import probe_latents, probe_stored, vae_options
    from patchatlas.datasets.verify.records import read_lines
    from patchatlas.io.feature_store import FeatureStore
    from patchatlas.io.images import MAX_PIXELS

    assert config.input_dir is not None
    store, records = FeatureStore(derived), read_lines(config.manifest).records
    generator = torch.Generator().manual_seed(config.seed)
    copied = [finding for finding in report.findings if finding.fault == "copied"]
    suspects = {str(name) for finding in copied for name in (finding.record, finding.evidence["other"])}
    limit = config.max_pixels or MAX_PIXELS
    if config.encoder is not None:
        with progress() as bar:
            task = bar.add_task("probing")
            findings, probed = probe_stored(
                records,
                store,
                input_dir=config.input_dir,
                encoder=_encoder(config.encoder, store, device=config.device),
                count=config.probe,
                first=suspects,
                cells=config.cells,
                max_pixels=limit,
                generator=generator,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        report = report.plus(findings, probed=probed)
    if config.latent_encoder is not None:
        vae = load_vae(config.latent_encoder, device=config.device, **vae_options(store))
        found = probe_latents(
            records,
            store,
            input_dir=config.input_dir,
            vae=vae,
            count=config.probe,
            first=suspects,
            max_pixels=limit,
            generator=generator,
        )
        report = report.plus(found)
    return report


def _encoder(name: str, store: "FeatureStore", *, device: str) -> "Encoder":
    """The encoder with the layer, norm and arithmetic that the stored set has."""
    from patchatlas.encoders.loading import load_encoder

    encoder = load_encoder(name, device=device, dtype="fp32")
    for folder in store.sets(f"{encoder.spec.family}_patches"):
        spec = store.header(folder).spec
        asked = None if spec is None else (spec.layer, spec.norm, spec.dtype)
        if spec is not None and asked != (encoder.spec.layer, encoder.spec.norm, encoder.spec.dtype):
            return load_encoder(name, device=device, dtype=spec.dtype, layer=spec.layer, norm=spec.norm)
    return encoder


def describe(report: "Report", requeued: "Requeued | None") -> str:
    """The report in lines for people."""
    lines = [f"{report.records} records, {report.files} files, {report.bytes / 1e6:,.1f} MB"]
    for kind, norms in report.norms.items():
        lines.append(
            f"  {kind}: median token length {norms.median:.4g} ({norms.lowest:.4g} to {norms.highest:.4g} over "
            f"{norms.pictures} pictures)"
        )
    if report.probed is not None:
        probed = report.probed
        lines.append(
            f"  probe: {len(probed.records)} pictures encoded again, worst difference {probed.worst:.2g} "
            f"({probed.allowed:.2g} allowed); {probed.hits} of {probed.cells} replaced patches answered at their "
            "own place"
        )
    for fault, count in report.counts().items():
        found = [finding for finding in report.findings if finding.fault == fault]
        lines.append(f"{found[0].severity}: {fault} ({count})")
        lines += [f"  {finding.sentence}" for finding in found[:LISTED]]
        if count > LISTED:
            lines.append(f"  and {count - LISTED} more")
        lines.append(f"  what to do: {found[0].advice}")
    if report.healthy:
        lines.append("nothing wrong was found")
    if requeued is not None and requeued.records:
        lines.append(
            f"{len(requeued.records)} pictures will be made again by `features build`; {len(requeued.files)} files "
            "were moved to _bad"
        )
    return "\n".join(lines)
