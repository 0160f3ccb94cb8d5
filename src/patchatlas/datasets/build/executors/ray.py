"""Work on units in actors of a Ray cluster, through Ray Data; each actor holds the encoder. Only this file imports ray.

The cluster is the one that this machine belongs to, or one of this machine alone that ends with the build. All of its
machines must see the pictures, the features and the manifest under the same paths.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchatlas.datasets.build.executors import local
from patchatlas.datasets.build.loading import load_networks, make_pass
from patchatlas.datasets.build.passes import FeaturePass
from patchatlas.datasets.build.report import Step
from patchatlas.datasets.build.settings import PassName, Settings
from patchatlas.datasets.build.units import Unit
from patchatlas.datasets.recipe import Recipe
from patchatlas.errors import InputError, MissingExtraError, PatchAtlasError, ResourceError, UsageError, WeightsError
from patchatlas.io.feature_store import FeatureStore

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
"""No usage statistics over the network, and no bars beside ours; whoever sets these otherwise has it so."""

UNITS_A_CALL = 8
"""Units that an actor takes at once, where there are enough. On a GPU a unit is about one batch, and the next is read
while one is encoded only if the actor has it already."""

_KINDS: tuple[type[PatchAtlasError], ...] = (UsageError, WeightsError, ResourceError, InputError)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How the work is spread.

    Attributes:
        actors: how many.
        decode: threads of each that read pictures.
        units: that each takes at once.
    """

    actors: int
    decode: int
    units: int


def share(*, units: int, slots: int, threads: int) -> Share:
    """Spread units over actors, which read pictures in `threads` threads all together.

    Args:
        units: to be worked on.
        slots: devices, or cores where there are no devices; no more actors are made.
        threads: if fewer than slots, there are fewer actors.
    """
    actors = max(1, min(units, slots, threads))
    return Share(
        actors=actors, decode=max(1, threads // actors), units=max(1, min(UNITS_A_CALL, units // (2 * actors)))
    )


class Worker:
    """An actor: loads the network once, then works on a few units a call.

    Args:
        settings: of the build, with the device and precision that were chosen where it was started.
        name: of the pass.
        recipe: with the bucket table in force.
    """

    def __init__(self, settings: Settings, name: PassName, recipe: Recipe) -> None:
        self._settings = settings
        self._recipe = recipe
        self._pass = make_pass(settings, name, load_networks(replace(settings, passes=(name,))), recipe)

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[bytes]]:
        """What became of the units in `rows`, and the error that ended the work, if one did."""
        steps: list[Step] = []
        error: tuple[int, str] | None = None
        try:
            with FeatureStore(self._settings.derived_dir) as store:
                for kind in self._pass.kinds:
                    store.open_set(kind.name, kind.stamp, spec=self._pass.spec, config=self._pass.config)
                units = [pickle.loads(unit) for unit in rows["unit"]]
                for step in local.run_units(
                    units, self._pass, store=store, settings=self._settings, recipe=self._recipe
                ):
                    steps.append(step)
        except PatchAtlasError as ours:  # Ray would try again, and give back an error of its own
            error = next((n, str(ours)) for n, kind in enumerate(_KINDS) if isinstance(ours, kind))
        return {"result": [pickle.dumps((steps, error))]}


def run_units(
    units: Sequence[Unit], feature_pass: FeaturePass, *, settings: Settings, recipe: Recipe
) -> Iterator[Step]:
    """Encode and store what is wanted of the units, in whatever order actors finish them.

    Raises:
        MissingExtraError: ray is not installed.
        PatchAtlasError: as `local.run_units`.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", extra="ray", needed_for="--executor ray") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # it tells of every start and end
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        on_gpu = feature_pass.device.type == "cuda"
        cluster: Any = ray
        slots = int(cluster.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
        threads = settings.workers or int(cluster.cluster_resources().get("CPU", 1))
        spread = share(units=len(units), slots=slots, threads=threads)
        precision = feature_pass.spec.dtype
        chosen = replace(
            settings,
            device=feature_pass.device.type,
            precision=precision,
            vae_precision=precision,
            workers=spread.decode,
        )
        rows = [{"unit": pickle.dumps(unit)} for unit in units]
        blocks = -(-len(rows) // spread.units)
        results = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Worker,
            fn_constructor_args=(chosen, feature_pass.name, recipe),
            batch_size=spread.units,
            compute=ray.data.ActorPoolStrategy(size=spread.actors),
            num_cpus=1,
            num_gpus=1 if on_gpu else None,
        )
        for row in results.iter_rows():
            steps, ended = pickle.loads(row["result"])
            yield from steps
            if ended is not None:
                kind, message = ended
                raise _KINDS[kind](message)
    finally:
        if started:
            ray.shutdown()
