"""Propose every mark that the photos of TARGET_DIR lack, by the confirmed marks in the photos of the --from folders.

Proposals go to photo.jpg.automark.json beside each photo, or with --merge into photo.jpg.json itself, and are never
marked as confirmed. Marks that are there already, confirmed or not, are never changed. A run that was stopped, also by
a kill, goes on where it ended when the same command is given again.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from patchatlas.cli.console import emit, progress
from patchatlas.cli.outputs import require_free
from patchatlas.cli.search_options import SearchOptions
from patchatlas.errors import InputError, ResourceError, UsageError

if TYPE_CHECKING:
    from patchatlas.locate.automark.plan import Plan
    from patchatlas.locate.automark.run import Session

STEM = "automark"

CACHE = ".patchatlas"

LISTED = 20
"""Skipped photos that are listed for people; --format json and the audit have them all."""


class Config(SearchOptions):
    """What `patchatlas automark` is asked to do."""

    target_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET_DIR")]
    """Folder of photos to mark: one rotomap."""
    reference_dirs: Annotated[tuple[Path, ...], tyro.conf.arg(name="from", metavar="REFERENCE_DIR [REFERENCE_DIR ...]")]
    """Folders of photos with confirmed marks; TARGET_DIR itself may be one."""
    stem: str | None = None
    """Write proposals to photo.jpg.STEM.json; automark without it."""
    merge: bool = False
    """Add proposals to photo.jpg.json itself, instead of a file of their own."""
    dry_run: bool = False
    """Look for the marks, and write no mark file; features are kept only with --cache."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least confidence of a proposal, beside being found."""
    include_uncertain: bool = False
    """Propose uncertain marks, too."""
    review: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Write a page with close-ups of every mark found or uncertain, the most doubtful first."""
    audit: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Write what was looked for, with which answer and why."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Keep features and answers here; without it in .patchatlas below melroot, or in TARGET_DIR."""
    max_pixels: Annotated[int | None, Field(gt=0)] = None
    """Larger photos are skipped; 89478485 pixels if not given."""
    strict: bool = False
    """Stop at the first photo that cannot be used, instead of skipping it."""


def run(config: Config) -> int:
    """Plan, look, write, report, and return 0, or 3 if photos or folders were skipped.

    Raises:
        UsageError: options that contradict each other.
        InputError: folders that cannot be used, or no confirmed mark.
        WeightsError: an encoder that cannot be had.
        ResourceError: memory or disk.
    """
    from patchatlas.cli.automark_review import write_review
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.io.images import MAX_PIXELS
    from patchatlas.locate.automark.audit import audit_of, write_audit
    from patchatlas.locate.automark.plan import make_plan
    from patchatlas.locate.automark.run import Settings, run_session

    _check(config)
    limit = config.max_pixels or MAX_PIXELS
    settings = Settings(
        recipe=config.recipe(),
        min_confidence=config.min_confidence,
        include_uncertain=config.include_uncertain,
        dry_run=config.dry_run,
        strict=config.strict,
        masks=config.masks,
        max_pixels=limit,
    )
    plan = make_plan(
        config.target_dir,
        config.reference_dirs,
        stem=None if config.merge else config.stem or STEM,
        strict=config.strict,
        max_pixels=limit,
    )
    if not config.dry_run:
        _require_writable(config.target_dir)
        plan = _without_read_only(plan, strict=config.strict)
    encoder = config.load()
    write_cache = config.cache is not None or not config.dry_run
    outputs = [path for path in (config.review, config.audit) if path is not None]
    with progress() as bar:
        task = bar.add_task("photos", total=len(plan.references) + len(plan.targets))
        session = run_session(
            plan,
            encoder,
            settings,
            cache=_cache(config, make=write_cache),
            write_cache=write_cache,
            outputs=outputs,
            on_done=lambda _: bar.advance(task),
        )
    if config.audit is not None:  # first, for the review opens photos again and may fail on one
        write_audit(config.audit, session)
    if config.review is not None and (unseen := write_review(config.review, session)):
        session = replace(session, skipped=(*session.skipped, *unseen))
        if config.audit is not None:
            write_audit(config.audit, session)
    told = _summary(config, session).encode(errors="backslashreplace").decode()  # names need not be UTF-8
    emit(config, human=told, data=audit_of(session))
    return SKIPPED if session.skipped else OK


def _check(config: Config) -> None:
    if config.merge and config.stem is not None:
        raise UsageError("--merge adds proposals to photo.jpg.json, --stem writes them elsewhere; give one of them")
    folders = [folder.resolve() for folder in (config.target_dir, *config.reference_dirs)]
    for what, path, suffix in (("--review", config.review, ".html"), ("--audit", config.audit, ".json")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise UsageError(f"{what} {path} does not end in {suffix}; give it that ending")
        if path.resolve().parent in folders and ".jp" in path.name.lower():
            raise UsageError(f"{what} {path} would stand among the marks of a photo; choose another name")
        require_free(what, path)


def _require_writable(folder: Path) -> None:
    """Say before the work that its result could not be written.

    Raises:
        ResourceError: no file can be made in the folder.
    """
    import os

    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(
            f"cannot write to {folder}: the folder may not be written; change its permissions, or look only, with "
            "--dry-run"
        )


def _without_read_only(plan: "Plan", *, strict: bool) -> "Plan":
    """The plan without the photos whose mark file may not be written: a rename would not heed that.

    Raises:
        InputError: there is such a photo, and the session is strict.
    """
    import os

    from patchatlas.locate.automark.plan import Trouble

    targets, skipped = [], []
    for target in plan.targets:
        if not target.missing or target.before is None or os.access(target.output, os.W_OK):
            targets.append(target)
            continue
        error = InputError(f"{target.output} may not be written; change its permissions, or give another --stem")
        if strict:
            raise error
        skipped.append(Trouble.of(target.name, error, folder=plan.folder))
    return replace(plan, targets=tuple(targets), skipped=(*plan.skipped, *skipped))


def _cache(config: Config, *, make: bool) -> Path:
    """Where features are kept: unless told otherwise with the photos, since they say as much of a person as those do.

    The folder that is ours by default is one that git passes over, as the caches of pytest and ruff are.
    """
    from patchatlas.files import write_text
    from patchatlas.io.disk import disk_errors
    from patchatlas.io.rotomaps import find_root

    if config.cache is not None:
        return config.cache
    folder = (find_root(config.target_dir) or config.target_dir) / CACHE
    if make and not (folder / ".gitignore").exists():
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            write_text(folder / ".gitignore", "*\n")
    return folder


def _summary(config: Config, session: "Session") -> str:
    width = max((len(one.target.path.name) for one in session.marked), default=0)
    lines = []
    for one in session.marked:
        states = [answer.state for answer in one.answers]
        found = ", ".join(
            f"{states.count(state)} {state}" for state in ("found", "uncertain", "absent") if state in states
        )
        file = f" -> {one.target.output.name}" if one.proposed else ""
        lines.append(f"{one.target.path.name:<{width}}  {one.proposed} proposed{file}; {found or 'nothing missing'}")
    lines += [f"skipped {one.file}: {one.reason}" for one in session.skipped[:LISTED]]
    if len(session.skipped) > LISTED:
        lines.append(f"... and {len(session.skipped) - LISTED} more skipped, all in --format json and --audit")
    lines += [f"note {one.file}: {one.reason}" for one in session.plan.notes]
    total = sum(one.proposed for one in session.marked)
    resumed = sum(one.resumed for one in session.marked)
    again = f", {resumed} photos already done by an earlier run" if resumed else ""
    written = "; dry run, no mark was written" if config.dry_run else ""
    lines.append(
        f"{session.plan.name}: {total} proposed in {len(session.marked)} photos{again}, {len(session.skipped)} "
        f"skipped{written}"
    )
    return "\n".join(lines)
