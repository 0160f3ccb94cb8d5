"""What a lossy format costs: stored features against the fp32 ones they were made from, on a sample of the pictures.

The sample is a function of the image ids alone, and what is measured on a picture is a function of that picture alone,
so any number of workers, in any order, after any restart, ends in the same report.

Axes: n patches, d features.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64
from torch import Tensor

from patchatlas import __version__
from patchatlas.datasets.reading import as_tokens
from patchatlas.errors import FormatError, ShapeError
from patchatlas.files import write_bytes, write_text
from patchatlas.io.codecs import StoredDtype, decode_array, encode_array
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.fidelity"
VERSION = 1
REPORT = "_fidelity.json"
FOLDER = "_fidelity"

QUERIES = 256
"""Patches of a picture whose nearest neighbour is looked up; evenly spread over its tokens."""

NOT_ASKED = -1.0


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """How far stored features are from the originals, over all tokens of the sample.

    Attributes:
        dtype: how the features are stored.
        images: pictures measured.
        tokens: tokens measured.
        cosine_mean: mean cosine between a stored token and its original.
        cosine_p1: the cosine that 1 % of the tokens stay below.
        cosine_min: the worst cosine.
        match_agreement: part of the asked tokens whose nearest other token of the same picture, by cosine, is the same
            before and after.
        match_queries: tokens asked.
        norm_error_mean: mean of | |stored| / |original| - 1 |.
        norm_error_max: its maximum.
        worst_image: picture with the worst cosine.
    """

    dtype: str
    images: int
    tokens: int
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    match_agreement: float
    match_queries: int
    norm_error_mean: float
    norm_error_max: float
    worst_image: str


def choose_sample(image_ids: Iterable[str], *, part: float = 0.01, least: int = 8, most: int = 64) -> frozenset[str]:
    """The ids whose SHA-256 is smallest: `part` of them, but at least `least` and at most `most`."""
    ids = sorted(image_ids, key=lambda image_id: hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest())
    return frozenset(ids[: min(most, max(least, math.ceil(part * len(ids))))])


def measure(original: Float32[Tensor, "n d"], stored: Float32[Tensor, "n d"]) -> Float64[Tensor, "n 3"]:
    """Per token: 1 - cosine, relative error of the norm, and whether its nearest neighbour stayed the same.

    The last column is 1 for the same neighbour, 0 for another, `NOT_ASKED` for tokens that were not asked; at most
    `QUERIES` are. 1 - cosine is half the squared distance of the unit vectors, which keeps its digits when it is small.
    A zero token that stays zero has no error.
    """
    before, after = original.double(), stored.double()
    norm_before, norm_after = before.norm(dim=1), after.norm(dim=1)
    unit_before, unit_after = F.normalize(before, dim=1), F.normalize(after, dim=1)
    loss = (unit_before - unit_after).square().sum(dim=1) / 2
    one_is_zero = (norm_before == 0) != (norm_after == 0)
    loss = torch.where(one_is_zero, 1.0, loss)
    norm_error = torch.where(norm_before == 0, one_is_zero.double(), (norm_after / norm_before - 1).abs())
    same = torch.full_like(loss, NOT_ASKED)
    if len(loss) > 1:
        asked = torch.linspace(0, len(loss) - 1, min(QUERIES, len(loss)), dtype=torch.float64).long()
        same[asked] = (_nearest(unit_before, asked) == _nearest(unit_after, asked)).double()
    return torch.stack([loss, norm_error, same], dim=1)


def summarise(measured: dict[str, Float64[Tensor, "n 3"]], *, dtype: str) -> FidelityReport:
    """One report over what `measure` gave for several pictures, by image id.

    Raises:
        ShapeError: there is no picture.
    """
    if not measured:
        raise ShapeError("nothing was measured; a report needs at least one picture")
    names = sorted(measured)
    table = torch.cat([measured[name] for name in names])
    loss, norm_error, same = table.unbind(dim=1)
    asked = same != NOT_ASKED
    beyond = math.ceil(0.99 * len(loss)) - 1  # the smallest loss that 99 % of the tokens do not exceed
    return FidelityReport(
        dtype=dtype,
        images=len(names),
        tokens=len(loss),
        cosine_mean=1 - loss.mean().item(),
        cosine_p1=1 - loss.sort().values[beyond].item(),
        cosine_min=1 - loss.max().item(),
        match_agreement=same[asked].mean().item() if asked.any() else 1.0,
        match_queries=int(asked.sum()),
        norm_error_mean=norm_error.mean().item(),
        norm_error_max=norm_error.max().item(),
        worst_image=max(names, key=lambda name: measured[name][:, 0].max().item()),
    )


class FidelityLog:
    """Collects measurements of one set while it is built, one small file a picture of the sample.

    A worker asks `wants` for each picture, and calls `add` before it commits one that is wanted; whoever finishes last
    calls `save`. Nothing is wanted of fp32.

    Args:
        store: where the set lies; it is open.
        kind: of the set.
        stamp: of the set.
        dtype: how its features are stored.
        sample: what `choose_sample` gave for all pictures of the manifest, the same for every worker.
    """

    def __init__(
        self, store: FeatureStore, kind: str, stamp: Stamp, *, dtype: StoredDtype, sample: frozenset[str]
    ) -> None:
        self._folder = store.folder(kind, stamp)
        self._kind, self._stamp, self._dtype = kind, stamp, dtype
        self.sample: frozenset[str] = frozenset() if dtype == "fp32" else sample

    def wants(self, image_id: str) -> bool:
        """Whether this picture is in the sample."""
        return image_id in self.sample

    def add(self, image_id: str, original: Float32[Tensor, "..."], content: bytes) -> None:
        """Compare original tokens with what the file `content` gives back; safe to call from several threads.

        Args:
            image_id: one that is wanted.
            original: tokens (n, d), or latents (c, h, w), whose pixels count as tokens.
            content: what `encode_array` made of them.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        measured = measure(as_tokens(original.cpu()), as_tokens(decode_array(content, self._dtype)))
        path = self._path(image_id)
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, encode_array(measured.float(), "fp32"))

    def report(self) -> FidelityReport | None:
        """What was measured so far, by any worker; `None` where nothing was."""
        there = [image_id for image_id in sorted(self.sample) if self._path(image_id).is_file()]
        if not there:
            return None
        measured = {image_id: decode_array(self._path(image_id), "fp32").double() for image_id in there}
        return summarise(measured, dtype=self._dtype)

    def save(self) -> FidelityReport | None:
        """Write the report to `_fidelity.json` of the set, if anything was measured.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        report = self.report()
        if report is not None:
            content = {
                "format": FORMAT,
                "version": VERSION,
                "package": __version__,
                "kind": self._kind,
                "stamp_sha256": self._stamp.digest,
                "report": asdict(report),
            }
            path = self._folder / REPORT
            with disk_errors(path):
                write_text(path, json.dumps(content, indent=2) + "\n")
        return report

    def _path(self, image_id: str) -> Path:
        return self._folder / FOLDER / f"{image_id}.npy"


def read_report(folder: Path) -> FidelityReport | None:
    """The report of a set, `None` where it has none.

    Raises:
        FormatError: there is a file, but it is no such report.
    """
    path = folder / REPORT
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise FormatError(f"{path} is {content['format']!r} version {content['version']}, not {FORMAT} {VERSION}")
        return FidelityReport(**content["report"])
    except (json.JSONDecodeError, LookupError, TypeError) as error:
        raise FormatError(f"{path} cannot be read: {error}; build again") from error


def describe(report: FidelityReport) -> str:
    """The report in one line for people."""
    return (
        f"{report.dtype}: cosine mean {report.cosine_mean:.9f}, p1 {report.cosine_p1:.9f}, min {report.cosine_min:.9f} "
        f"(worst in {report.worst_image}); patch match {100 * report.match_agreement:.2f} % of {report.match_queries}; "
        f"norm error mean {report.norm_error_mean:.1e}, max {report.norm_error_max:.1e}; "
        f"{report.images} images, {report.tokens} tokens"
    )


def _nearest(unit: Float64[Tensor, "n d"], asked: Tensor) -> Tensor:
    """Index of the token nearest to each asked one, itself left out."""
    similarity = unit[asked] @ unit.T
    similarity[torch.arange(len(asked)), asked] = -torch.inf
    return similarity.argmax(dim=1)
