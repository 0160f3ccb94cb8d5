"""How well marks of one volume are found in the next: scans of examples/locate_volume.py, several seeds and encoders.

    python -m benchmarks.locate.volumes [--seeds 4] [--marks 12] [--encoders gradients raw vit3d]

    gradients   of the example: rises and falls of each patch of 4 voxels and those around it
    raw         voxels of a patch of 8, less their mean
    vit3d       a small 3-D ViT with random weights, patch 8

Ways: `batch`, all marks from one encoding of the source; `centred`, the source encoded anew for each mark, the mark in
the centre of a patch. Errors are in voxels of the target; `in place` is how far off a mark is that is looked for where
it was. Markdown on stdout.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.locate.metrics import auroc
from benchmarks.random_vit import random_vit
from examples import locate_volume as drawn
from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViTConfig
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.locate.volume import volume_frame
from patchatlas.spec import EncoderSpec

Array = np.ndarray

VIT3D = ViTConfig(family="vit3d", patch=(8, 8, 8), dim=192, depth=6, heads=3, ffn_hidden=768)


class RawEncoder:
    """The voxels of a patch, less their mean."""

    device = torch.device("cpu")
    spec = EncoderSpec(
        name="raw",
        family="raw",
        patch=(8, 8, 8),
        dim=512,
        registers=0,
        has_cls=False,
        channels=1,
        mean=(0.0,),
        std=(1.0,),
        layer=0,
        depth=1,
        norm="none",
        dtype="fp32",
        licence="Apache-2.0",
        weights_sha256="8" * 64,
        source="bundled",
    )

    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Volumes (b, 1, z, h, w) to tokens (b, n, 512)."""
        cells = pixels[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).unfold(3, 8, 8)
        tokens = cells.flatten(4).flatten(1, 3)
        return Tokens(tokens - tokens.mean(dim=2, keepdim=True))


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "gradients": drawn.GradientEncoder,
    "raw": RawEncoder,
    "vit3d": lambda: random_vit(VIT3D, name="vit3d"),
}


def find_batch(source: Tensor, target: Tensor, marks_xyz: Array, encoder: Encoder) -> list[Finding]:
    """All marks from one encoding of each scan."""
    patch = encoder.spec.patch
    maps = [
        encode(volume, encoder, frame=volume_frame(volume.shape[1:], patch=patch, scale=scale))
        for volume, scale in ((source, drawn.SOURCE_VOXEL), (target, drawn.TARGET_VOXEL))
    ]
    uuids = [str(k) for k in range(len(marks_xyz))]
    return locate_points(*maps, torch.from_numpy(marks_xyz), uuids=uuids, image_size=max(maps[0].grid.frame.size))


def main() -> None:
    """Read the options, draw, find, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locate.volumes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--marks", type=int, default=12)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    errors: dict[tuple[str, str], list[Array]] = {}
    sure: dict[tuple[str, str], list[float]] = {}
    seconds: dict[tuple[str, str], float] = {}
    unmoved = []
    for seed in range(options.seeds):
        random = np.random.default_rng(seed)
        body, motion = drawn.draw_body(random), drawn.draw_motion(random)
        source = drawn.scan(body, drawn.SOURCE_VOXEL, random)
        target = drawn.scan(body, drawn.TARGET_VOXEL, random, motion)
        marks, truth = drawn.pick_marks(source, np.array(target.shape[1:]), motion, count=options.marks)
        unmoved.append(np.linalg.norm(marks / drawn.TARGET_VOXEL[::-1] - truth, axis=1))
        for name in options.encoders:
            encoder = ENCODERS[name]()
            shown = [scan.expand(encoder.spec.channels, -1, -1, -1) for scan in (source, target)]
            for way, find in (("batch", find_batch), ("centred", drawn.find)):
                began = time.perf_counter()
                findings = find(*shown, marks, encoder)
                key = name, way
                seconds[key] = seconds.get(key, 0.0) + time.perf_counter() - began
                found = np.array([finding.target_xy for finding in findings])
                errors.setdefault(key, []).append(np.linalg.norm(found - truth, axis=1))
                sure.setdefault(key, []).extend(finding.confidence for finding in findings)
    print("| encoder | way | marks | median | mean | within 2 | within 4 | AUROC of confidence | s a scan pair |")
    print("| --- " * 9 + "|")
    for (name, way), parts in errors.items():
        off = np.concatenate(parts)
        trusted = auroc(np.array(sure[name, way]), off <= 4)
        print(
            f"| {name} | {way} | {len(off)} | {np.median(off):.2f} | {off.mean():.2f} | {np.mean(off <= 2):.0%} | "
            f"{np.mean(off <= 4):.0%} | {trusted:.2f} | {seconds[name, way] / options.seeds:.1f} |"
        )
    still = np.concatenate(unmoved)
    print(
        f"| in place | | {len(still)} | {np.median(still):.2f} | {still.mean():.2f} | {np.mean(still <= 2):.0%} | "
        f"{np.mean(still <= 4):.0%} | | |"
    )


if __name__ == "__main__":
    main()
