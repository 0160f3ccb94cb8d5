"""A session as one JSON object: what was looked for where, and what came of it; docs/formats/automark-audit-v1.md.

It holds neither times nor absolute paths, so the same photos, marks and options give the same bytes.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.files import write_text
from patchatlas.io.disk import disk_errors
from patchatlas.locate.automark.plan import Trouble
from patchatlas.locate.automark.run import Marked, Session
from patchatlas.matching.confidence import calibration_for

FORMAT = "patchatlas.automark-audit"
VERSION = 1


def audit_of(session: Session) -> dict[str, Any]:
    """The session as plain JSON values."""
    settings = session.settings
    states = [answer.state for one in session.marked for answer in one.answers]
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "target": session.plan.name,
        "settings": {
            "stem": session.plan.stem,
            "dry_run": settings.dry_run,
            "min_confidence": settings.min_confidence,
            "include_uncertain": settings.include_uncertain,
            "recipe": settings.recipe.to_json(),
            "calibration": calibration_for(session.spec).to_json(),
        },
        "encoder": asdict(session.spec),
        "counts": {
            "photos": len(session.marked),
            "missing": len(states),
            "proposed": sum(one.proposed for one in session.marked),
            **{state: states.count(state) for state in ("found", "uncertain", "absent")},
            "skipped": len(session.skipped),
        },
        "references": [
            {"name": one.name, "sha256": one.sha256, "marks": list(one.marks)} for one in session.references
        ],
        "photos": [_photo(one) for one in session.marked],
        "skipped": _troubles(session.skipped),
        "notes": _troubles(session.plan.notes),
    }


def write_audit(path: Path, session: Session) -> None:
    """Write the audit in one step.

    Raises:
        InputError: the folder does not exist.
        ResourceError: the disk is full, or the folder may not be written.
    """
    with disk_errors(path):
        write_text(path, json.dumps(audit_of(session), indent=2, sort_keys=True, allow_nan=False) + "\n")


def _photo(one: Marked) -> dict[str, Any]:
    rows, columns = one.target.size_hw
    return {
        "name": one.target.name,
        "sha256": one.target.sha256,
        "size_hw": [rows, columns],
        "mask": one.masked,
        "marks_file": one.target.output.name,
        "before_sha256": one.before,
        "after_sha256": one.after,
        "proposed": one.proposed,
        "marks": [answer.to_json() for answer in one.answers],
    }


def _troubles(troubles: tuple[Trouble, ...]) -> list[dict[str, str]]:
    return [{"file": one.file, "reason": one.reason} for one in troubles]
