"""patchatlas itself, and what bounds it, as a process for benchmarks/features.py.

python benchmarks/features_ours.py serve       jobs come in as lines of JSON, answers go out as lines
"""

import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from features_child import MODEL, Answer, Job, serve
from torch import Tensor

from patchatlas.datasets.build import run
from patchatlas.datasets.build.executors.local import TOKEN_BUDGETS
from patchatlas.datasets.build.loading import Networks
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.build.units import cut_units
from patchatlas.datasets.recipe import Decode, Recipe
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.matmul import fast_float32
from patchatlas.io.codecs import StoredDtype
from patchatlas.io.manifest import Record

CPU = torch.device("cpu")
CORES = torch.get_num_threads()
PATCH = 16


def build(job: Job, *, precision: str, storage: StoredDtype, decode: Decode = "full") -> Answer:
    """The function behind `patchatlas features build`, from the folder to the finished manifest."""
    out = Path(job["out"])
    settings = Settings(
        input_dir=Path(job["pictures"]),
        manifest=out / "dataset.jsonl",
        derived_dir=out / "derived",
        passes=("dinov3",),
        recipe=Recipe(buckets=tuple(map(tuple, job["table"])), storage=storage, decode=decode),
        encoder=MODEL,
        device="cpu",
        precision=precision,
        strict=True,
    )
    loading = 0.0
    load_networks = run.load_networks

    def timed(given: Settings) -> Networks:
        nonlocal loading
        start = time.perf_counter()
        networks = load_networks(given)
        loading = time.perf_counter() - start
        return networks

    run.load_networks = timed
    try:
        start = time.perf_counter()
        run.build(settings)
        return {"load": loading, "work": time.perf_counter() - start - loading}
    finally:
        run.load_networks = load_networks


def model_alone(job: Job, *, precision: str) -> Answer:
    """The forwards of `build` on pixels that are there already; one batch a core, or all cores on one batch, whichever
    is faster."""
    start = time.perf_counter()
    encoder = load_encoder(MODEL, device="cpu", dtype=precision)
    loading = time.perf_counter() - start
    records = [
        Record(image_path=name, image_id=Path(name).stem, aspect_bucket=tuple(shape))
        for name, shape in job["shapes"].items()
    ]
    units = cut_units(records, cost=lambda bucket: bucket[0] * bucket[1] // PATCH**2)
    generator = torch.Generator().manual_seed(0)
    pixels = [
        torch.rand(len(batch.records), 3, *batch.bucket, generator=generator)
        for unit in units
        for batch in unit.batches(TOKEN_BUDGETS["cpu"])
    ]

    def one_by_one() -> None:
        for batch in pixels:
            encoder(batch)

    beside = min(_seconds(partial(_beside, encoder, pixels)), _seconds(one_by_one))
    return {"load": loading, "work": beside}


def _beside(call: Callable[[Tensor], object], inputs: Iterable[Tensor]) -> None:
    """Call for each input, on as many threads as there are cores, with one thread of torch each."""
    with (
        fast_float32(CPU),
        ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        list(pool.map(call, inputs))
    torch.set_num_threads(CORES)


def products(_: Job, *, precision: str) -> Answer:
    """Operations a second of the first feed-forward linear over 2048 tokens, on all cores.

    The better of one product a core and all cores on one product, and of torch's two libraries for float32.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    linear = torch.nn.Linear(384, 4 * 384, dtype=dtype).requires_grad_(False)
    inputs = [torch.randn(2048, 384, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(40)]

    def one_by_one() -> None:
        for x in inputs:
            linear(x)

    def by_onednn() -> None:
        with fast_float32(CPU):
            one_by_one()

    ways = (one_by_one, by_onednn, partial(_beside, linear, inputs))
    best = min(statistics.median(_seconds(way) for _ in range(5)) for way in ways)
    return {"rate": len(inputs) * 2 * 2048 * 384 * 4 * 384 / best}


def _seconds(run: Callable[[], object]) -> float:
    with torch.inference_mode():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start


WAYS: dict[str, Callable[[Job], Answer]] = {
    "patchatlas, fp32": partial(build, precision="fp32", storage="fp32"),
    "patchatlas, fp32, --decode fast": partial(build, precision="fp32", storage="fp32", decode="fast"),
    "patchatlas, bf16": partial(build, precision="bf16", storage="fp16"),
    "model alone, fp32": partial(model_alone, precision="fp32"),
    "model alone, bf16": partial(model_alone, precision="bf16"),
    "products, fp32": partial(products, precision="fp32"),
    "products, bf16": partial(products, precision="bf16"),
}

if __name__ == "__main__":
    import logging

    logging.disable(logging.WARNING)
    serve(WAYS, lambda: {"torch": torch.__version__, "threads": str(CORES)})
