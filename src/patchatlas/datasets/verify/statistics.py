"""What only shows when pictures are compared: one size for all, tokens of another length, the same features twice."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import exp, log

from patchatlas.datasets.verify.contents import Looked
from patchatlas.datasets.verify.report import Finding, Norms

FEWEST = 8
"""Pictures below which lengths are not compared."""

OTHER_NORM = 3.0
"""Factor from the median beyond which tokens cannot come from the same place of a network. Tokens before and after the
last LayerNorm differ 76 times in DINOv3 (H-EmbodVis/TurboVLA#6); those of different pictures by some per cent."""

OUTLIER = 8.0
"""Robust standard deviations (1.4826 times the median deviation) of the logarithm that make an outlier."""

NARROWEST = 0.05
"""Least standard deviation of the logarithm that is taken, so that 40 % is the least that makes an outlier."""


def one_size_for_all(looked: Iterable[Looked]) -> Iterator[Finding]:
    """Kinds whose grids do not follow the bucket: every picture was cropped or squashed to one size."""
    by_kind = defaultdict(list)
    for file in looked:
        if file.grid is not None and file.expected is not None:
            by_kind[file.kind].append(file)
    for kind, files in sorted(by_kind.items()):
        found, wanted = {file.grid for file in files}, {file.expected for file in files}
        if len(found) == 1 and len(wanted) > 1:
            grid = next(iter(found))
            assert grid is not None
            sentence = (
                f"All {len(files)} pictures have a grid of {' x '.join(map(str, grid))}, their buckets give "
                f"{len(wanted)} different ones: they were cropped or squashed to one size."
            )
            yield Finding(fault="one_size_for_all", sentence=sentence, kind=kind, evidence={"grid": list(grid)})


def unusual_lengths(looked: Iterable[Looked]) -> Iterator[Finding]:
    """Pictures whose tokens are much longer or shorter than those of the others of their kind."""
    for kind, files in _by_length(looked).items():
        if len(files) < FEWEST:
            continue
        logs = [log(length) for _, length in files]
        middle = statistics.median(logs)
        spread = max(NARROWEST, 1.4826 * statistics.median(abs(value - middle) for value in logs))
        for (file, length), value in zip(files, logs, strict=True):
            far, times = abs(value - middle), exp(value - middle)
            evidence = {"length": length, "median": exp(middle), "times": times}
            sentence = (
                f"Tokens of {file.record} have a median length of {length:.4g}, {times:.3g} times that of the others."
            )
            # Latents of a black and of a white picture differ as much as they like, tokens after a LayerNorm do not.
            other = far > log(OTHER_NORM) and not kind.endswith("latents")
            if far > OUTLIER * spread:
                yield Finding(
                    fault="other_norm" if other else "outlier",
                    sentence=sentence,
                    record=file.record,
                    kind=kind,
                    file=file.file,
                    evidence=evidence,
                )


def copies(looked: Iterable[Looked]) -> Iterator[Finding]:
    """Features that two files of other bytes share to the last bit.

    Either one was overwritten by the other, or the two show the same pixels (as a PNG and a BMP of one picture do),
    which only encoding them again tells.
    """
    owners: dict[tuple[str, str], Looked] = {}
    for file in sorted(looked, key=lambda one: one.record):
        if file.sha256 is None or file.kind.endswith("_registers"):
            continue
        other = owners.setdefault((file.kind, file.sha256), file)
        if other is not file and other.file != file.file and (file.source is None or other.source != file.source):
            sentence = (
                f"{file.record} has the same features as {other.record}, to the last bit; the picture files differ."
            )
            yield Finding(
                fault="copied",
                sentence=sentence,
                record=file.record,
                kind=file.kind,
                file=file.file,
                evidence={"other": other.record},
            )


def norms_of(looked: Iterable[Looked]) -> dict[str, Norms]:
    """Lengths of tokens by kind."""
    return {
        kind: Norms(
            pictures=len(files),
            median=statistics.median(length for _, length in files),
            lowest=min(length for _, length in files),
            highest=max(length for _, length in files),
        )
        for kind, files in _by_length(looked).items()
    }


def _by_length(looked: Iterable[Looked]) -> dict[str, list[tuple[Looked, float]]]:
    by_kind = defaultdict(list)
    for file in looked:
        if file.length is not None and file.length > 0:
            by_kind[file.kind].append((file, file.length))
    return {kind: by_kind[kind] for kind in sorted(by_kind)}
