"""Do what a plan says: look for every missing mark of every photo, and write what was found to the mark files.

Order of events for one photo: its answers are kept as a record, then its mark file is written in one step. A run that
is killed in between finds the record and writes the file; one that is killed later finds the file as the record says it
should be. So a rerun ends in the same bytes, whenever the first was stopped.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError, ShapeError, UsageError
from patchatlas.files import write_bytes
from patchatlas.geometry.turns import Turn, turns_of
from patchatlas.io.disk import disk_errors
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.landmarks import marks_path, read_content, with_marks
from patchatlas.io.masks import Mask
from patchatlas.io.writers import writing
from patchatlas.locate.automark.alone import alone_in
from patchatlas.locate.automark.answer import Answer, as_marks
from patchatlas.locate.automark.cache import FeatureCache
from patchatlas.locate.automark.photos import Photo, facts_about, mask_of, open_photo
from patchatlas.locate.automark.plan import Plan, Reference, Target, Trouble, sha256
from patchatlas.locate.automark.records import FORMAT, VERSION, Record, Records
from patchatlas.locate.automark.seek import seek
from patchatlas.locate.encoding import prepare
from patchatlas.locate.recipe import Recipe
from patchatlas.matching.confidence import calibration_for
from patchatlas.matching.verdict import State
from patchatlas.spec import EncoderSpec

log = logging.getLogger(__name__)

FEATURES, RESULTS = "features", "results"
"""Folders in the cache folder."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a session is run.

    Attributes:
        recipe: how marks are looked for.
        min_confidence: least confidence of a proposal, beside being found.
        include_uncertain: propose uncertain marks, too.
        dry_run: write no mark file.
        strict: raise for the first photo that cannot be used, instead of listing it.
        masks: heed the masks beside photos.
        max_pixels: larger photos cannot be used.

    Raises:
        UsageError: `min_confidence` is not in 0..1, or the recipe has an option that sessions do not know.
    """

    recipe: Recipe
    min_confidence: float = 0.0
    include_uncertain: bool = False
    dry_run: bool = False
    strict: bool = False
    masks: bool = True
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence {self.min_confidence} is no probability; give a number from 0 to 1")
        if self.recipe.peak != Recipe.peak and not self.recipe.closer:
            raise UsageError(
                f"peak {self.recipe.peak}: marks that are placed together are placed by a {Recipe.peak}; leave it out, "
                "or give jitter or zoom too, which it then is for"
            )
        if self.recipe.candidates != Recipe.candidates:
            raise UsageError(
                f"candidates {self.recipe.candidates}: marks that are placed together have one place each to look at "
                "more closely; leave it out"
            )

    def proposes(self, state: State, confidence: float) -> bool:
        """Whether a mark of this state and confidence is proposed."""
        wanted = ("found", "uncertain") if self.include_uncertain else ("found",)
        return state in wanted and confidence >= self.min_confidence


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One photo of the target, done.

    Attributes:
        target: which.
        masked: whether it has a mask.
        answers: one a missing mark that a usable reference shows, in the order of their uuids.
        before: SHA-256 of its mark file before any run of this session; `None` if there was none.
        after: of that file with the proposals, written or not; `None` if there is none.
        resumed: whether an earlier run had found the answers.
    """

    target: Target
    masked: bool
    answers: tuple[Answer, ...]
    before: str | None
    after: str | None
    resumed: bool

    @property
    def proposed(self) -> int:
        """How many marks are proposed."""
        return sum(answer.proposed for answer in self.answers)


@dataclass(frozen=True, kw_only=True)
class Session:
    """All that was done.

    Attributes:
        plan: what there was to do.
        settings: how it was done.
        spec: the encoder, prepared.
        references: those that could be used, in the order of the plan.
        marked: the photos that were done, in the order of the plan.
        skipped: photos and folders that could not be used, from planning and running.
    """

    plan: Plan
    settings: Settings
    spec: EncoderSpec
    references: tuple[Reference, ...]
    marked: tuple[Marked, ...]
    skipped: tuple[Trouble, ...]


def run_session(
    plan: Plan,
    encoder: Encoder,
    settings: Settings,
    *,
    cache: Path | None = None,
    write_cache: bool = True,
    outputs: Sequence[Path] = (),
    on_done: Callable[[str], None] = lambda _: None,
) -> Session:
    """Look for every missing mark, and write the proposals.

    Args:
        plan: what there is to do.
        encoder: of pictures.
        settings: how.
        cache: folder for features and records; `None` keeps nothing, and a run that is stopped begins anew.
        write_cache: whether new features and records are kept, too.
        outputs: other files that the caller will write; what a killed run left beside them is removed.
        on_done: called with the name of each photo that is ready, references first.

    Raises:
        UsageError: the encoder cannot follow the recipe.
        InputError: no reference can be used, another run marks the same folder, or with `strict` any photo that
            cannot be used.
        ResourceError: the disk is full or may not be written, or memory ran out.
    """
    encoder = prepare(encoder, settings.recipe)
    _require_fit(encoder.spec, settings.recipe)
    with ExitStack() as held:
        if not settings.dry_run:
            held.enter_context(alone_in(plan.folder, outputs=[*(t.output for t in plan.targets), *outputs]))
        if cache is not None and write_cache:
            held.enter_context(writing(cache))
        run = _Run(plan, encoder, settings, cache, write_cache, on_done)
        return run.session()


class _Run:
    """What is known while a session runs."""

    def __init__(
        self,
        plan: Plan,
        encoder: Encoder,
        settings: Settings,
        cache: Path | None,
        write_cache: bool,
        on_done: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._encoder = encoder
        self._settings = settings
        self._features = FeatureCache(cache and cache / FEATURES, write=write_cache)
        self._records = Records(cache and cache / RESULTS, write=write_cache)
        self._on_done = on_done
        self._skipped: list[Trouble] = list(plan.skipped)

    def session(self) -> Session:
        opened = self._open_references()
        if not opened:
            reasons = "".join(f"\n  {one.file}: {one.reason}" for one in self._skipped)
            raise InputError(f"no photo with confirmed marks can be used:{reasons}")
        marked = tuple(self._mark_all(opened))
        return Session(
            plan=self._plan,
            settings=self._settings,
            spec=self._encoder.spec,
            references=tuple(reference for reference, _ in opened),
            marked=marked,
            skipped=tuple(self._skipped),
        )

    def _open_references(self) -> list[tuple[Reference, Photo]]:
        turns = turns_of(self._settings.recipe.turns)
        opened = []
        for reference in self._plan.references:
            try:
                photo = self._open(reference, self._mask_of(reference), turns)
            except InputError as error:
                self._skip(reference, error)
            else:
                opened.append((reference, photo))
            self._on_done(reference.name)
        return opened

    def _mark_all(self, opened: Sequence[tuple[Reference, Photo]]) -> Iterator[Marked]:
        for target in self._plan.targets:
            try:
                yield self._mark(target, [one for one in opened if one[0].name != target.name])
            except InputError as error:
                self._skip(target, error)
            self._on_done(target.name)

    def _mark(self, target: Target, opened: Sequence[tuple[Reference, Photo]]) -> Marked:
        """The answers of one photo, from a record or found now; writes its mark file."""
        mask = self._mask_of(target)
        now = sha256(target.before)
        facts = self._facts(target, mask, opened)
        record = self._records.read(facts, now=now)
        resumed = record is not None
        if record is None:
            found = self._seek(target, mask, opened)
            record = Record(now, sha256(self._with_proposals(target, found)), found)
            self._records.keep(facts, record)
        if not self._settings.dry_run and now != record.after:
            self._write(target, record)
        return Marked(
            target=target,
            masked=mask is not None,
            answers=record.answers,
            before=record.before,
            after=record.after,
            resumed=resumed,
        )

    def _seek(self, target: Target, mask: Mask | None, opened: Sequence[tuple[Reference, Photo]]) -> tuple[Answer, ...]:
        shown = {uuid for reference, _ in opened for uuid in reference.marks}
        missing = [uuid for uuid in target.missing if uuid in shown]
        if not missing:
            return ()
        photo = self._open(target, mask, ("upright",))
        return seek(
            target,
            photo,
            opened,
            missing,
            encoder=self._encoder,
            recipe=self._settings.recipe,
            proposes=self._settings.proposes,
            max_pixels=self._settings.max_pixels,
        )

    def _mask_of(self, photo: Reference | Target) -> Mask | None:
        return mask_of(photo, max_pixels=self._settings.max_pixels) if self._settings.masks else None

    def _open(self, photo: Reference | Target, mask: Mask | None, turns: Sequence[Turn]) -> Photo:
        return open_photo(
            photo,
            mask,
            self._encoder,
            self._settings.recipe,
            self._features,
            turns=turns,
            max_pixels=self._settings.max_pixels,
        )

    @staticmethod
    def _with_proposals(target: Target, answers: Sequence[Answer]) -> bytes | None:
        """The mark file with the proposals; as it is if there are none."""
        marks = as_marks(answers)
        return with_marks(target.before, marks, target.output) if marks else target.before

    def _write(self, target: Target, record: Record) -> None:
        content = self._with_proposals(target, record.answers)
        assert content is not None, "a file that changes is there afterwards"
        with disk_errors(target.output):
            own = marks_path(target.path)
            if sha256(read_content(target.path)) != target.sha256:
                raise InputError(f"{target.path} changed while the session ran, so nothing was written; run it again")
            elsewhere = target.output != own and sha256(read_content(own)) != target.others_sha256
            if elsewhere or read_content(target.output) != target.before:
                raise InputError(
                    f"{own if elsewhere else target.output} changed while the session ran, so nothing was written; "
                    "run it again"
                )
            write_bytes(target.output, content)

    def _facts(
        self,
        target: Target,
        mask: Mask | None,
        opened: Sequence[tuple[Reference, Photo]],
    ) -> dict[str, Any]:
        """All that the answers depend on, but for the mark file that they go to."""
        _, features = facts_about(target, mask, self._encoder.spec, self._settings.recipe)
        recipe = self._settings.recipe.to_json()
        del recipe["max_memory"]  # changes nothing but what a forward takes
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "photo": {"name": target.name, "features": features},
            "marks": {"file": target.output.name, "others_sha256": target.others_sha256},
            "ignored": list(target.ignored),
            "references": [
                {
                    "name": reference.name,
                    "sha256": reference.sha256,
                    "mask_sha256": one.mask_sha256,
                    "marks": {uuid: list(pixel) for uuid, pixel in reference.marks.items()},
                }
                for reference, one in opened
            ],
            "recipe": recipe,
            "calibration": calibration_for(self._encoder.spec).to_json(),
            "min_confidence": self._settings.min_confidence,
            "include_uncertain": self._settings.include_uncertain,
        }

    def _skip(self, photo: Reference | Target, error: InputError) -> None:
        if self._settings.strict:
            raise error
        log.warning("skipped %s: %s", photo.name, error)
        self._skipped.append(Trouble.of(photo.name, error, folder=photo.path.parent))


def _require_fit(spec: EncoderSpec, recipe: Recipe) -> None:
    """Refuse at once what every photo would be refused for."""
    if spec.ndim != 2:
        raise ShapeError(f"{spec.name} encodes {spec.ndim}-D input; photos need a 2-D encoder")
    if any(recipe.image_size % side for side in spec.patch):
        side = max(spec.patch)
        raise UsageError(
            f"image_size {recipe.image_size} is not a multiple of the patch of {spec.name}, {side} px; take "
            f"{max(1, round(recipe.image_size / side)) * side}"
        )
