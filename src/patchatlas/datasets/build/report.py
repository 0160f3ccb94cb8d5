"""What a build says while it runs and when it has ended."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from patchatlas.datasets.fidelity import FidelityReport
from patchatlas.io.manifest import RecordError


@dataclass(frozen=True, kw_only=True)
class Step:
    """Pictures that are finished, on the disk and in a journal.

    Attributes:
        done: how many were encoded.
        tokens: patches of those.
        bytes: of features written.
        skipped: why the others were not, by image_id.
    """

    done: int
    tokens: int
    bytes: int
    skipped: Mapping[str, RecordError]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a pass is.

    Attributes:
        stage: name of the pass, or `scan`.
        done: pictures finished in this run, skipped ones included.
        total: pictures that this run has to finish.
        skipped: pictures that could not be used.
        tokens: patches made.
    """

    stage: str
    done: int
    total: int
    skipped: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: of the pass.
        done: pictures encoded in this run.
        there: pictures whose features were there already.
        tokens: patches made.
        bytes: of features written.
        seconds: how long it took, without loading the network and reading the headers of pictures.
        sets: folders of its features, by kind, below the derived folder.
        fidelity: what storing cost on the sample, by lossy kind.
    """

    name: str
    done: int
    there: int
    tokens: int
    bytes: int
    seconds: float
    sets: Mapping[str, str]
    fidelity: Mapping[str, FidelityReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "seconds": round(self.seconds, 3),
            "sets": dict(self.sets),
            "fidelity": {kind: asdict(one) for kind, one in self.fidelity.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A picture that could not be used."""

    image_path: str
    error: RecordError

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"image_path": self.image_path, **self.error.to_json()}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a build did.

    Attributes:
        manifest: where it is.
        pictures: records in it.
        passes: what each did.
        skipped: pictures of this worker's part that could not be used, by path.
        seconds: all in all.
    """

    manifest: Path
    pictures: int
    passes: tuple[PassReport, ...] = field(default_factory=tuple)
    skipped: tuple[Skipped, ...] = field(default_factory=tuple)
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "manifest": str(self.manifest),
            "pictures": self.pictures,
            "done": sum(one.done for one in self.passes),
            "there": sum(one.there for one in self.passes),
            "skipped": len(self.skipped),
            "bytes": sum(one.bytes for one in self.passes),
            "seconds": round(self.seconds, 3),
            "passes": [one.to_json() for one in self.passes],
            "errors": [one.to_json() for one in self.skipped],
        }
