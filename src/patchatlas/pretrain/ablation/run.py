"""Every arm with every seed: trained in a folder of its own, probed, and scored once.

    config.yaml                     what all arms have in common
    runs/ARM/seed-N/                an ordinary run, see `pretrain.run_folder`
    scores/ARM/seed-N.json          what it came to
    baselines/random-N.safetensors  an encoder that never learnt
    ablation.json, ablation.md      the table of what is finished of the arms asked for last

Killed at any moment and started again, a run that was going goes on, and what is finished is not done again. The
format's page: docs/formats/ablation-v1.md.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.precision import choose_device
from patchatlas.errors import UsageError
from patchatlas.files import holds_others, write_text
from patchatlas.pretrain.ablation.arms import UNIFORM, arm_config
from patchatlas.pretrain.ablation.labelled import Labelled, fingerprint, read_labelled
from patchatlas.pretrain.ablation.results import (
    METRICS,
    Kind,
    Result,
    probe_numbers,
    read_result,
    summed_up,
    write_result,
)
from patchatlas.pretrain.ablation.table import Table
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.config import FREE, PretrainConfig, differences, read_config, to_yaml
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.data import Opened, open_source
from patchatlas.pretrain.distilled import open_distilled, with_stamp
from patchatlas.pretrain.export import write_encoder
from patchatlas.pretrain.model import make_student, with_mean_std
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.probe import Patches, encode_cases, raw_cases, score
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train

RANDOM, RAW, RAW_HISTOGRAM = "random weights", "raw mean and std", "raw histogram"
"""Names of the baselines."""

BINS = 32
"""Of the raw histogram of a patch, over the window."""

_FREE = tuple(name for name in FREE if name not in ("data", "monitor"))
"""What may change in an ablation that is gone on with. A run that is done keeps the verdicts and numbers of the monitor
that it had, so arms of other ones would not compare."""


@dataclass(frozen=True, eq=False)
class _Job:
    """One result that is to be had."""

    arm: str
    kind: Kind
    seed: int
    config: PretrainConfig


@dataclass(frozen=True)
class Told:
    """Where an ablation is: what is worked on, and how far it is."""

    arm: str
    seed: int
    step: int
    steps: int
    finished: int
    of: int


def run_ablation(
    base: PretrainConfig,
    arms: Sequence[str],
    *,
    seeds: int,
    labelled: str | Path,
    output: str | Path,
    on_step: Callable[[Told], None] | None = None,
) -> Table:
    """Do what is left of an ablation, and write its table after every run.

    Seeds come one after the other, each with all arms, so that what is finished can be compared at any time.

    Args:
        base: what all arms have in common.
        arms: names, see `arms.PARTS`.
        seeds: 0 to this less one.
        labelled: folder of volumes with labels that no run learns from, see `labelled.read_labelled`. The first half,
            in the order of names, is what probes are fitted on, the other half what they are asked about.
        output: folder; one that is there is gone on in. Its table has the arms and seeds asked for.
        on_step: told after each step.

    Raises:
        UsageError: an arm that is not known or does not fit the config or cache, or a folder of another ablation.
        InputError: volumes that are not there, or do not fit.
    """
    output = Path(output)
    jobs = _jobs(base, arms, seeds)
    cache = open_cache(base.data)
    for job in jobs:
        for counted in _crops(job).keys:
            cache.cells(cache.records[0], counted)  # refuses what the cache has not counted, before hours of training
    opened = open_source(arm_config(base, UNIFORM, seed=0))
    held = read_labelled(
        labelled, spacing_mm=opened.spacing_mm or (), learnt_from={record.sha256 for record in cache.records}
    )
    base = with_stamp(base, open_distilled(base, device=choose_device(base.train.device)))
    jobs = _jobs(base, arms, seeds)
    _claim(output, base)
    found: list[Result] = []
    for number, job in enumerate(jobs):
        path = output / "scores" / job.arm / f"seed-{job.seed}.json"
        key = _key(job, opened, held)
        result = read_result(path, key=key)
        if result is None:
            result = _make(job, output, opened, held, _teller(job, number, len(jobs), on_step))
            write_result(path, result, key=key)
        found.append(result)
        Table.of(base, found, volumes=len(cache.records), held=len(held)).write(output)
    return Table.of(base, found, volumes=len(cache.records), held=len(held))


def _jobs(base: PretrainConfig, arms: Sequence[str], seeds: int) -> list[_Job]:
    if not arms or len(set(arms)) < len(arms):
        raise UsageError(f"arms must be named, each once, given: {' '.join(arms) or 'none'}")
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none; give 1 or more, 3 for intervals that say something")
    plain = arm_config(base, UNIFORM, seed=0)
    jobs = [_Job(RAW, "raw", 0, plain), _Job(RAW_HISTOGRAM, "raw", 0, plain)]
    for seed in range(seeds):
        jobs.append(_Job(RANDOM, "random", seed, arm_config(base, UNIFORM, seed=seed)))
        jobs += [_Job(arm, "arm", seed, arm_config(base, arm, seed=seed)) for arm in arms]
    return jobs


def _claim(output: Path, base: PretrainConfig) -> None:
    """Make the folder, or see that it is of the same ablation."""
    path = output / "config.yaml"
    if path.exists():
        differing = differences(read_config(path), base, free=_FREE)
        if differing:
            raise UsageError(
                f"{output} holds an ablation of other settings ({'; '.join(differing[:8])}, its own first); go on with "
                "its own, or name another folder"
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise holds_others(output, "ablation", some=sorted(path.name for path in output.iterdir()))
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, to_yaml(base))


def _key(job: _Job, opened: Opened, held: Sequence[Labelled]) -> str:
    """Of all that a result depends on."""
    parts = (to_yaml(job.config), opened.fingerprint, fingerprint(held), " ".join(METRICS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _teller(
    job: _Job, number: int, jobs: int, on_step: Callable[[Told], None] | None
) -> Callable[[int, dict[str, float], str], None] | None:
    if on_step is None:
        return None
    return lambda done, _numbers, _level: on_step(
        Told(job.arm, job.seed, done, job.config.train.steps, finished=number, of=jobs)
    )


def _make(
    job: _Job,
    output: Path,
    opened: Opened,
    held: Sequence[Labelled],
    on_step: Callable[[int, dict[str, float], str], None] | None,
) -> Result:
    if job.kind == "raw":
        return Result(job.arm, job.kind, job.seed, _probed(_raw(job, half) for half in _halves(held)))
    if job.kind == "random":
        path = output / "baselines" / f"random-{job.seed}.safetensors"
        path.parent.mkdir(exist_ok=True)
        config = with_mean_std(job.config)
        student = make_student(config)
        write_encoder(path, student.state_dict(), student.vit.config, config, step=0, spacing_mm=opened.spacing_mm)
        return Result(job.arm, job.kind, job.seed, _probed(_encoded(path, job, half) for half in _halves(held)))
    folder = RunFolder(output / "runs" / job.arm / f"seed-{job.seed}")
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    outcome = train(job.config, folder.path, on_step=on_step)
    settings = job.config.train
    told = summed_up(read_log(folder.log), samples=settings.batch * settings.accumulate)
    encoder = folder.teacher(outcome.done)
    told["numbers"] |= _probed(_encoded(encoder, job, half) for half in _halves(held))
    return Result(arm=job.arm, kind=job.kind, seed=job.seed, steps=outcome.done, **told)


def _halves(held: Sequence[Labelled]) -> tuple[Sequence[Labelled], Sequence[Labelled]]:
    half = (len(held) + 1) // 2
    return held[:half], held[half:]


def _encoded(encoder: Path, job: _Job, held: Sequence[Labelled]) -> Patches:
    loaded = load_encoder(encoder, device=job.config.train.device, dtype="fp32")
    crops = _crops(job)
    return encode_cases(loaded, [one.case(crops.window_hu) for one in held], crop=crops.globals.size)


def _raw(job: _Job, held: Sequence[Labelled]) -> Patches:
    crops = _crops(job)
    bins = BINS if job.arm == RAW_HISTOGRAM else 0
    cases = [one.case(crops.window_hu) for one in held]
    return raw_cases(cases, patch=crops.patch, crop=crops.globals.size, bins=bins)


def _crops(job: _Job) -> CropConfig:
    crops = job.config.crops
    assert isinstance(crops, CropConfig), "arm_config refuses photographs"
    return crops


def _probed(halves: Iterator[Patches]) -> dict[str, float]:
    """Scores of the probe on all classes but 0; none where features are not finite."""
    fit, test = halves
    if not (bool(fit.tokens.isfinite().all()) and bool(test.tokens.isfinite().all())):
        return {}
    classes = [name for name in set(fit.labels.tolist()) if name > 0]
    return probe_numbers(score(fit, test, classes=classes))
