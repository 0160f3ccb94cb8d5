"""Work on units in this process."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

import torch

from patchatlas.datasets.build.drawing import draw
from patchatlas.datasets.build.journal import open_journal
from patchatlas.datasets.build.passes import FeaturePass
from patchatlas.datasets.build.pipeline import Workers, run_batches
from patchatlas.datasets.build.report import Step
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.build.units import Unit
from patchatlas.datasets.fidelity import FidelityLog
from patchatlas.datasets.recipe import Recipe
from patchatlas.io.feature_store import FeatureStore

TOKEN_BUDGETS = {"cpu": 4096}
"""Tokens of a batch: more make a CPU no faster, and the last batches of a small data set longer."""

TOKEN_BUDGET = 65_536
"""The same for any other device."""


def run_units(
    units: Sequence[Unit], feature_pass: FeaturePass, *, store: FeatureStore, settings: Settings, recipe: Recipe
) -> Iterator[Step]:
    """Encode and store what is wanted of the units; yields once a batch, in order, when it is safe.

    Raises:
        PictureError: a picture that cannot be used, if `settings.strict`.
        FormatError: features that the storage cannot hold, or a record whose bucket is not that of the recipe.
        ResourceError: memory or disk.
    """
    budget = settings.token_budget or TOKEN_BUDGETS.get(feature_pass.device.type, TOKEN_BUDGET)
    drawn = partial(
        draw,
        input_dir=settings.input_dir,
        patch=feature_pass.patch,
        recipe=recipe,
        max_pixels=settings.max_pixels,
    )
    with open_journal(store.derived_dir, manifest=settings.manifest) as journal:
        for committed in run_batches(
            chain.from_iterable(unit.batches(budget) for unit in units),
            feature_pass,
            draw=drawn,
            store=store,
            journal=journal,
            fidelity=fidelity_logs(store, feature_pass, settings),
            workers=Workers.choose(feature_pass.device, cores=available_cores(), decode=settings.workers),
            strict=settings.strict,
        ):
            done = len(committed.finished.done)
            yield Step(
                done=done,
                tokens=done * feature_pass.cost(committed.batch.bucket),
                bytes=committed.bytes,
                skipped=committed.finished.skipped,
            )


def fidelity_logs(store: FeatureStore, feature_pass: FeaturePass, settings: Settings) -> dict[str, FidelityLog]:
    """Where it is noted what storing costs, by kind; only lossy kinds have one."""
    return {
        kind.name: FidelityLog(store, kind.name, kind.stamp, dtype=kind.dtype, sample=settings.sample)
        for kind in feature_pass.kinds
        if kind.dtype != "fp32"
    }


def available_cores() -> int:
    """Cores that this process may use, and not more threads than torch was told to take."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, torch.get_num_threads()))
