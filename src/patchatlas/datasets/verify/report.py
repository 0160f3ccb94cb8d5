"""What verification found: typed findings with their evidence, in one report."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from patchatlas.datasets.verify.faults import FAULTS, MEANINGS, Fault, Severity


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: its name.
        sentence: what was found and what should be, in words.
        record: image_id of the picture; `None` where it is of no single one.
        kind: kind of feature.
        file: posix path below the derived folder.
        evidence: the numbers.
    """

    fault: Fault
    sentence: str
    record: str | None = None
    kind: str | None = None
    file: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return MEANINGS[self.fault].severity

    @property
    def advice(self) -> str:
        """What to do."""
        return MEANINGS[self.fault].advice

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "fault": self.fault,
            "severity": self.severity,
            "record": self.record,
            "kind": self.kind,
            "file": self.file,
            "sentence": self.sentence,
            "advice": self.advice,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Lengths of tokens of one kind over all pictures, each picture counted once by its median.

    Attributes:
        pictures: how many.
        median: over pictures.
        lowest: over pictures.
        highest: over pictures.
    """

    pictures: int
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probe did.

    Attributes:
        records: ids of the pictures that were encoded again.
        cells: patches that were replaced, over all sizes of input.
        hits: of these, how many were answered within a patch of their own place.
        worst: the largest difference between stored and encoded tokens, relative to the encoded ones.
        allowed: the difference that storage and arithmetic explain.
    """

    records: tuple[str, ...]
    cells: int
    hits: int
    worst: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a verification.

    Attributes:
        records: lines of the manifest.
        files: feature files that were looked at.
        bytes: their size together.
        findings: what is wrong, errors first.
        norms: by kind.
        probed: what the probe did, if it was asked for.
    """

    records: int
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    norms: Mapping[str, Norms]
    probed: Probed | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that are no mere warnings."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def healthy(self) -> bool:
        """Whether nothing at all was found."""
        return not self.findings

    def counts(self) -> dict[Fault, int]:
        """How often each fault was found, in the order of the list of faults."""
        found = Counter(finding.fault for finding in self.findings)
        return {fault: found[fault] for fault in FAULTS if fault in found}

    def plus(self, findings: Iterable[Finding], *, probed: Probed | None = None) -> "Report":
        """The report with more findings."""
        return replace(self, findings=in_order([*self.findings, *findings]), probed=probed or self.probed)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "records": self.records,
            "files": self.files,
            "bytes": self.bytes,
            "errors": len(self.errors),
            "warnings": len(self.findings) - len(self.errors),
            "counts": self.counts(),
            "norms": {kind: vars(norms) for kind, norms in self.norms.items()},
            "probe": None if self.probed is None else {**vars(self.probed), "records": list(self.probed.records)},
            "findings": [finding.to_json() for finding in self.findings],
        }


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by fault, picture, kind and file, so that the order never depends on threads."""
    rank = {fault: number for number, fault in enumerate(FAULTS)}

    def place(finding: Finding) -> tuple[bool, int, str, str, str]:
        return (
            finding.severity != "error",
            rank[finding.fault],
            finding.record or "",
            finding.kind or "",
            finding.file or "",
        )

    return tuple(sorted(findings, key=place))
