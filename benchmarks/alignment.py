"""What misaligned patches cost: how well a linear map finds the latents and colours of each cell from its patch.

    python benchmarks/alignment.py [--encoders pixels tiny vits16 vits14 sift] [--json FILE]

Ridge regression from the patch of a cell to what lies in the cell: the 2 x 2 latents of a small autoencoder of stride 8
(random weights), and mean colour and mean absolute gradient. R2 is that of pictures that the regression has not seen,
the mean over all targets. It is measured with patches that are aligned, and with the same patches misaligned in ways
that no count of tokens shows:

    centre crop      the encoder saw the middle 7/8 of the picture, enlarged (224 of 256)
    register shift   tokens 1:n+1 instead of those after CLS and registers: four places late
    transposed       tokens column by column
    half a patch     the input moved by half a patch, right and down

Patch 14 does not meet latent tokens one to one: `resampled` is by area on the grid, `cut lists` takes the first n of
both flat lists, as a loss that cuts both to the shorter length does.

Photos: those of Debian's opencv-doc (`make data` fetches it) and the one shipped with the package. Encoders have random
weights, so no download is needed; `sift` is bundled:sift; `pixels` gives the pixels of the patch themselves.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import patchatlas
from patchatlas.dense import to_pixels
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViTConfig
from patchatlas.geometry.area import LatentMatch, match_latents
from patchatlas.geometry.buckets import Hw, cover, nearest_bucket, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.io.images import read_image
from patchatlas.spec import EncoderSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.random_vit import VITS16, random_vit
from tools import debian_data

PHOTOS = (
    *("aero1.jpg", "aloeL.jpg", "apple.jpg", "baboon.jpg", "basketball1.png", "board.jpg", "building.jpg"),
    *("butterfly.jpg", "fruits.jpg", "graf1.png", "home.jpg", "leuvenA.jpg", "messi5.jpg", "orange.jpg"),
    *("pca_test1.jpg", "rubberwhale1.png", "starry_night.jpg", "stuff.jpg"),
)
SHIPPED = Path(patchatlas.__file__).parent / "demo_data" / "motorcycle_left.jpg"

BUCKETS: tuple[Hw, ...] = ((384, 384), (320, 448), (448, 320))
"""(h, w): two of them not square, so that swapped axes show."""

STRIDE, LATENT_PATCH = 8, 2
CELL = STRIDE * LATENT_PATCH

PENALTIES = tuple(10.0**power for power in range(-3, 6))

ViTs = {
    "tiny": ViTConfig(family="dinov3", patch=(16, 16), dim=64, depth=2, heads=2, registers=4, ffn_hidden=256),
    "vits16": VITS16,
    "vits14": ViTConfig(
        family="dinov2", patch=(14, 14), dim=384, depth=12, heads=6, registers=4, ffn_hidden=1536, table_grid=(37, 37)
    ),
}

ENCODERS = ("pixels", *ViTs, "sift")

Make = Callable[[Encoder, Tensor, Tokens, LatentMatch], Tensor]
"""Pixels of a bucket and their tokens to one row of features for each latent token."""


class PixelEncoder:
    """The pixels of a patch are its features, for comparison."""

    device = torch.device("cpu")
    spec = EncoderSpec(
        name="pixels",
        family="pixels",
        patch=(CELL, CELL),
        dim=3 * CELL**2,
        registers=0,
        has_cls=False,
        channels=3,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        layer=0,
        depth=1,
        norm="none",
        dtype="fp32",
        licence="cc0-1.0",
        weights_sha256="0" * 64,
        source="none",
    )

    def __call__(self, pixels: Tensor, /) -> Tokens:
        return Tokens(F.unfold(pixels, CELL, stride=CELL).transpose(1, 2))


def load(name: str) -> Encoder:
    """An encoder by the name that `--encoders` has for it."""
    if name == "pixels":
        return PixelEncoder()
    return load_encoder("bundled:sift", device="cpu") if name == "sift" else random_vit(ViTs[name], name=name)


def random_vae(folder: Path) -> Callable[[Tensor], Tensor]:
    """The latents (16 numbers a token) of a small random AutoencoderKL: pixels (3, h, w) to (tokens, 16)."""
    from diffusers import AutoencoderKL

    from patchatlas.datasets.latents import load_vae

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 16, 32, 32),
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,
        ).save_pretrained(folder)
    vae = load_vae(folder, device="cpu", scaled=False)

    def tokens(pixels: Tensor) -> Tensor:
        latents = vae(pixels[None])[0]  # (c, h / 8, w / 8)
        c, h, w = latents.shape
        cells = latents.reshape(c, h // LATENT_PATCH, LATENT_PATCH, w // LATENT_PATCH, LATENT_PATCH)
        return cells.permute(1, 3, 0, 2, 4).reshape(-1, c * LATENT_PATCH**2)

    return tokens


def colours(pixels: Tensor) -> Tensor:
    """Mean colour and mean absolute gradient of each cell: pixels (3, h, w) to (cells, 5)."""
    grey = pixels.mean(dim=0)
    steps = torch.stack([grey.diff(dim=1, append=grey[:, -1:]).abs(), grey.diff(dim=0, append=grey[-1:]).abs()])
    both = torch.cat([pixels, steps])
    c, h, w = both.shape
    return both.reshape(c, h // CELL, CELL, w // CELL, CELL).mean(dim=(2, 4)).reshape(c, -1).T


def tokens_of(encoder: Encoder, pixels: Tensor) -> Tokens:
    """The bucket at the size of whole patches, encoded."""
    size = (pixels.shape[1], pixels.shape[2])
    frame = to_patches(Frame.whole(size), encoder.spec.patch)
    return encoder(resample(pixels, frame)[None])


def aligned(_: Encoder, __: Tensor, tokens: Tokens, match: LatentMatch) -> Tensor:
    """As it should be; by area where the grids differ."""
    return match.resample(tokens.patches[0])


def centre_cropped(encoder: Encoder, pixels: Tensor, _: Tokens, match: LatentMatch) -> Tensor:
    """The middle 7/8, enlarged."""
    size = (pixels.shape[1], pixels.shape[2])
    kept = [n * 7 // 8 for n in size]
    frame = Frame.whole(size).crop([(n - k) // 2 for n, k in zip(size, kept, strict=True)], kept).resize(size)
    return match.resample(tokens_of(encoder, resample(pixels, frame)).patches[0])


def register_shifted(_: Encoder, __: Tensor, tokens: Tokens, match: LatentMatch) -> Tensor:
    """Tokens 1 : n + 1 of CLS, registers, patches."""
    assert tokens.registers is not None
    return match.resample(torch.cat([tokens.registers[0], tokens.patches[0]])[: tokens.patches.shape[1]])


def transposed(_: Encoder, __: Tensor, tokens: Tokens, match: LatentMatch) -> Tensor:
    """Tokens column by column, read row by row."""
    patches = tokens.patches[0].reshape(*match.patches, -1)
    return match.resample(patches.transpose(0, 1).reshape(-1, patches.shape[2]))


def half_shifted(encoder: Encoder, pixels: Tensor, _: Tokens, match: LatentMatch) -> Tensor:
    """The input moved by half a patch along both axes."""
    size = (pixels.shape[1], pixels.shape[2])
    frame = Frame.whole(size).crop([-p // 2 for p in encoder.spec.patch], size)
    return match.resample(tokens_of(encoder, resample(pixels, frame)).patches[0])


def cut_lists(_: Encoder, __: Tensor, tokens: Tokens, match: LatentMatch) -> Tensor:
    """The first patches of the flat list, as many as there are latent tokens."""
    return tokens.patches[0][: match.tokens[0] * match.tokens[1]]


WAYS: dict[str, Make] = {
    "aligned": aligned,
    "centre crop": centre_cropped,
    "register shift": register_shifted,
    "transposed": transposed,
    "half a patch": half_shifted,
    "cut lists": cut_lists,
}


def ways_for(encoder: Encoder) -> Iterator[str]:
    """The ways that mean something for an encoder."""
    for way in WAYS:
        if way == "register shift" and not encoder.spec.registers:
            continue
        if way == "cut lists" and encoder.spec.patch == (CELL, CELL):
            continue
        yield way


def r2(features: list[Tensor], targets: list[Tensor]) -> float:
    """Held-out R2 of ridge regression: every third picture is held out; of the rest every third chooses the penalty."""
    numbers = range(len(features))
    held = [i for i in numbers if i % 3 == 2]
    rest = [i for i in numbers if i % 3 != 2]
    tuned, fitted = rest[::3], [i for k, i in enumerate(rest) if k % 3]
    best = max(PENALTIES, key=lambda penalty: _score(features, targets, fitted, tuned, penalty))
    return _score(features, targets, rest, held, best)


def _score(features: list[Tensor], targets: list[Tensor], fit: list[int], test: list[int], penalty: float) -> float:
    x, y = (torch.cat([parts[i] for i in fit]).double() for parts in (features, targets))
    mean, spread, middle = x.mean(dim=0), x.std(dim=0).clamp(min=1e-9), y.mean(dim=0)
    z = (x - mean) / spread
    weights = torch.linalg.solve(z.T @ z + penalty * torch.eye(z.shape[1], dtype=torch.float64), z.T @ (y - middle))
    x, y = (torch.cat([parts[i] for i in test]).double() for parts in (features, targets))
    error = (y - middle - (x - mean) / spread @ weights).square().sum(dim=0)
    return float((1 - error / (y - y.mean(dim=0)).square().sum(dim=0)).mean())


def pictures() -> Iterator[Tensor]:
    """Pixels of each photo in its bucket."""
    folder = debian_data.folder("opencv-doc")
    for path in (*(folder / name for name in PHOTOS), SHIPPED):
        pixels = to_pixels(read_image(path))
        bucket = nearest_bucket(pixels.shape[1:], BUCKETS)
        yield resample(pixels, cover(pixels.shape[1:], bucket))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    photos = list(pictures())
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        latents = random_vae(Path(folder))
        targets = {
            "latents": [latents(pixels) for pixels in photos],
            "colour and gradient": [colours(pixels) for pixels in photos],
        }
    print(f"{len(photos)} pictures, {sum(map(len, targets['latents']))} cells")
    rows = []
    for name in options.encoders:
        encoder = load(name)
        with torch.inference_mode():
            tokens = [tokens_of(encoder, pixels) for pixels in photos]
        for way in ways_for(encoder):
            with torch.inference_mode():
                features = [_made(way, encoder, *both) for both in zip(photos, tokens, strict=True)]
            row = {"encoder": name, "patches": way, **{what: r2(features, y) for what, y in targets.items()}}
            rows.append(row)
            numbers = "  ".join(f"{row[what]:6.3f}" for what in targets)
            print(f"{name:8} {way:16} {numbers}   ({time.monotonic() - began:.0f} s)", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _made(way: str, encoder: Encoder, pixels: Tensor, tokens: Tokens) -> Tensor:
    bucket = (pixels.shape[1], pixels.shape[2])
    match = match_latents(bucket, patch=encoder.spec.patch, latent_stride=STRIDE, latent_patch=LATENT_PATCH)
    return WAYS[way](encoder, pixels, tokens, match)


if __name__ == "__main__":
    main()
