"""The other ways to make feature files, run by the peers' own Python for benchmarks/features.py.

    PEERS_PYTHON benchmarks/features_peers.py serve               jobs come in as lines of JSON, answers go out as lines
    PEERS_PYTHON benchmarks/features_peers.py dinotool ARGUMENTS  dinotool's command line as it is

It imports nothing of patchatlas. docs/benchmarks-features.md says how to make the environment. dinotool is not changed:
the two operators declared below are what torchvision's Python half asks for when its compiled half, built for CUDA,
does not load beside a CPU build of torch; nothing here calls them.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from features_child import MODEL, Answer, Job, serve
from PIL import Image

OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

BATCH = 8
"""Pictures of a batch, for those who make batches; more made none of them faster."""


def dinotool(job: Job) -> Answer:
    """The whole of dinotool's own processing, every picture at its own size, one at a time."""
    return _dinotool(job, [])


def dinotool_squashed(job: Job) -> Answer:
    """dinotool's only way to batch a folder: every picture stretched to one size."""
    rows, columns = job["size"]
    return _dinotool(job, ["--input-size", str(columns), str(rows), "--batch-size", str(BATCH)])


def _dinotool(job: Job, more: list[str]) -> Answer:
    from dinotool import cli

    loading = 0.0
    load_model = cli.load_model

    def timed(*given: str) -> torch.nn.Module:
        nonlocal loading
        start = time.perf_counter()
        model = load_model(*given)
        loading = time.perf_counter() - start
        return model

    out = str(Path(job["out"]) / "features")
    sys.argv = ["dinotool", job["pictures"], "-o", out, "-m", MODEL, "-s", "full", "--no-vis", "--force", *more]
    cli.load_model = timed
    try:
        config = cli.ArgumentParser().parse()
        start = time.perf_counter()
        cli.DinotoolProcessor(config).run()
        return {"load": loading, "work": time.perf_counter() - start - loading}
    finally:
        cli.load_model = load_model


def transformers_single(job: Job) -> Answer:
    """Processor and model, a picture at a time, at the size that dinotool and patchatlas encode it."""
    return _transformers(job, ([name] for name in job["shapes"]), job["shapes"].__getitem__)


def transformers_fixed(job: Job) -> Answer:
    """Processor and model in batches, every picture stretched to one size."""
    return _transformers(job, _batches(list(job["shapes"])), lambda _: job["size"])


def transformers_shapes(job: Job) -> Answer:
    """Processor and model in batches of one shape: what a careful user of transformers writes."""
    groups = defaultdict(list)
    for name, shape in job["shapes"].items():
        groups[tuple(shape)].append(name)
    batches = (batch for names in groups.values() for batch in _batches(names))
    return _transformers(job, batches, job["shapes"].__getitem__)


def _batches(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + BATCH] for start in range(0, len(names), BATCH))


def _transformers(job: Job, batches: Iterator[list[str]], shape: Callable[[str], tuple[int, int]]) -> Answer:
    from transformers import AutoImageProcessor, AutoModel

    start = time.perf_counter()
    processor = AutoImageProcessor.from_pretrained(MODEL)
    model = AutoModel.from_pretrained(MODEL).eval()
    loading = time.perf_counter() - start
    skipped = 1 + model.config.num_register_tokens
    for names in batches:
        pictures = [Image.open(Path(job["pictures"]) / name).convert("RGB") for name in names]
        height, width = shape(names[0])
        pixels = processor(pictures, size={"height": height, "width": width}, return_tensors="pt")
        tokens = model(**pixels).last_hidden_state.numpy()
        for name, row in zip(names, tokens, strict=True):
            np.save(Path(job["out"]) / f"{Path(name).stem}_patches.npy", row[skipped:])
            np.save(Path(job["out"]) / f"{Path(name).stem}_cls.npy", row[0])
    return {"load": loading, "work": time.perf_counter() - start - loading}


def earlier(job: Job) -> Answer:
    """How the earlier project worked: one picture at a time, Pillow's bicubic, float32, files written in between.

    Written from its description (resize to cover the bucket, centre crop, a forward of one picture, np.save onto the
    final name), with its slice of the tokens put right.
    """
    from transformers import AutoModel

    start = time.perf_counter()
    model = AutoModel.from_pretrained(MODEL).eval()
    loading = time.perf_counter() - start
    skipped = 1 + model.config.num_register_tokens
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for name, (rows, columns) in job["shapes"].items():
        picture = Image.open(Path(job["pictures"]) / name).convert("RGB")
        scale = max(columns / picture.width, rows / picture.height)
        width, height = max(round(picture.width * scale), columns), max(round(picture.height * scale), rows)
        left, top = (width - columns) // 2, (height - rows) // 2
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        picture = picture.crop((left, top, left + columns, top + rows))
        pixels = (np.asarray(picture, np.float32) / 255 - mean) / std
        tokens = model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).last_hidden_state[0].numpy()
        np.save(Path(job["out"]) / f"{Path(name).stem}_cls.npy", tokens[0])
        np.save(Path(job["out"]) / f"{Path(name).stem}_patches.npy", tokens[skipped:])
    return {"load": loading, "work": time.perf_counter() - start - loading}


WAYS = {
    "dinotool": dinotool,
    "dinotool squashed": dinotool_squashed,
    "transformers single": transformers_single,
    "transformers fixed": transformers_fixed,
    "transformers shapes": transformers_shapes,
    "earlier": earlier,
}


def facts() -> dict[str, str]:
    """Versions that stand beside the table."""
    return {name: version(name) for name in ("torch", "torchvision", "transformers", "dinotool", "pillow")}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        import transformers

        torch.set_grad_enabled(False)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        serve(WAYS, facts)
    else:
        from dinotool.cli import cli

        del sys.argv[1]
        cli()
