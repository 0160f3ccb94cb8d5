"""All terms of the objective put together: what each crop and token counts, the teacher's targets, the student's loss.

A step has several micro-batches. Targets are made of all of them in one go, and what sums are divided by is counted
over all of them and all processes, so the loss of a step does not depend on how its samples are dealt out. (KoLeo,
SIGReg and the negatives of matches are of the samples of a micro-batch: there, larger ones say more.)

Axes: s student views (globals g, then locals l), t teacher views, b samples, n patch tokens, q hidden tokens (in the
order of views, samples, patches), k and j prototypes, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.distilled import Shown, across
from patchatlas.pretrain.losses.config import LossConfig
from patchatlas.pretrain.losses.dino import dino_loss
from patchatlas.pretrain.losses.distil import distil_loss
from patchatlas.pretrain.losses.gram import gram_loss
from patchatlas.pretrain.losses.ibot import ibot_loss, patch_targets
from patchatlas.pretrain.losses.koleo import koleo_loss
from patchatlas.pretrain.losses.match import match_loss
from patchatlas.pretrain.losses.ranks import Ranks
from patchatlas.pretrain.losses.sigreg import random_directions, sigreg_terms
from patchatlas.pretrain.losses.sinkhorn import RowQueue, sinkhorn
from patchatlas.pretrain.losses.weights import (
    PairWeights,
    TokenWeights,
    background_tokens,
    counted_tokens,
    crop_weights,
    mean_total,
    pair_weights,
    token_weights,
)
from patchatlas.pretrain.matches import Matches
from patchatlas.pretrain.student import Seen


@dataclass(frozen=True, eq=False, kw_only=True)
class Shares:
    """How much everything in a micro-batch counts.

    Attributes:
        pairs: of student and teacher views.
        crops: of views, in terms without pairs.
        tokens: of hidden tokens.
        counted: tokens of the global crops that take part in patch terms.
        background: tokens that are assigned the background prototype; `None` for none.
        hidden: tokens that the student does not see.
        matches: places of patches in the other global crops, hidden and uncounted ones left out; `None` where no
            term asks for them.
    """

    pairs: PairWeights
    crops: Float[Tensor, "s b"]
    tokens: TokenWeights
    counted: Bool[Tensor, "g b n"]
    background: Bool[Tensor, "g b n"] | None
    hidden: Bool[Tensor, "g b n"]
    matches: Matches | None = None


def weigh(
    batch: Batch,
    hidden: Bool[Tensor, "g b n"],
    config: LossConfig,
    *,
    matches: Matches | None = None,
    mean_ratio: Float[Tensor, ""] | None = None,
) -> Shares:
    """How much everything in a micro-batch counts, from its foreground.

    Args:
        batch: the crops.
        hidden: tokens that the student does not see.
        config: the terms.
        matches: what shows the same place, for the terms that ask for it.
        mean_ratio: foreground share of all crops of the step, for `weighting="mean"`.
    """
    counted = counted_tokens(batch.global_foreground, config.foreground, pad=batch.global_pad)
    return Shares(
        pairs=pair_weights(
            batch.global_ratio,
            batch.local_ratio,
            dino=config.dino,
            foreground=config.foreground,
            parent=batch.parent,
            mean_ratio=mean_ratio,
        ),
        crops=crop_weights(torch.cat([batch.global_ratio, batch.local_ratio]), config.foreground),
        tokens=token_weights(hidden, counted),
        counted=counted,
        background=background_tokens(batch.global_foreground, config.foreground),
        hidden=hidden,
        matches=None if matches is None else matches.without(hidden | ~counted),
    )


@dataclass(frozen=True, eq=False)
class Taught:
    """What the teacher says of a micro-batch, before it is made into targets.

    Attributes:
        cls: logits of class tokens; `None` without that term.
        patches: logits of the hidden tokens; `None` without that term.
    """

    cls: Float[Tensor, "t b k"] | None
    patches: Float[Tensor, "q j"] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Goal:
    """What the student is to reach in a micro-batch, and what its sums are divided by.

    Attributes:
        shares: of everything.
        cls: targets of class tokens.
        patches: targets of the hidden tokens.
        pair_total: what the DINO sum is divided by.
        token_total: what the iBOT sum is divided by.
        crop_total: what the Gram sum is divided by.
        match_total: what the sum over matches is divided by.
        like_total: what sums over all patch tokens that count are divided by.
        micro: micro-batches of the step.
    """

    shares: Shares
    cls: Float[Tensor, "t b k"] | None
    patches: Float[Tensor, "q j"] | None
    pair_total: Float[Tensor, ""]
    token_total: Float[Tensor, ""]
    crop_total: Float[Tensor, ""]
    match_total: Float[Tensor, ""]
    like_total: Float[Tensor, ""]
    micro: int


class Objective:
    """The objective of a run; what it remembers of earlier steps goes into checkpoints, process by process.

    Args:
        config: the terms.
        ranks: the processes that train together.
    """

    def __init__(self, config: LossConfig, ranks: Ranks) -> None:
        self.config = config
        self.ranks = ranks
        self._cls_queue = RowQueue(config.sinkhorn.queue_rows)
        self._patch_queue = RowQueue(config.sinkhorn.queue_patch_rows)

    def goals(self, taught: Sequence[Taught], shares: Sequence[Shares], *, temperature: float) -> list[Goal]:
        """The targets of all micro-batches of a step. All processes must call it."""
        cls = self._cls_targets(taught, shares, temperature)
        patches = self._patch_targets(taught, shares, temperature)
        ranks = self.ranks
        pair_total = mean_total(*(one.pairs.total for one in shares), ranks=ranks)
        token_total = mean_total(*(one.tokens.total for one in shares), ranks=ranks)
        crop_total = mean_total(*(one.counted.any(-1).sum() for one in shares), ranks=ranks)
        match_total = mean_total(*(_matched(one) for one in shares), ranks=ranks)
        like_total = mean_total(*(one.counted.sum() for one in shares), ranks=ranks)
        return [
            Goal(
                shares=one,
                cls=for_cls,
                patches=for_patches,
                pair_total=pair_total,
                token_total=token_total,
                crop_total=crop_total,
                match_total=match_total,
                like_total=like_total,
                micro=len(shares),
            )
            for one, for_cls, for_patches in zip(shares, cls, patches, strict=True)
        ]

    def terms(
        self,
        globals_seen: Seen,
        locals_seen: Seen | None,
        goal: Goal,
        *,
        gram: Float[Tensor, "v n e"] | None,
        shown: Shown | None = None,
        directions_seed: int,
    ) -> dict[str, Tensor]:
        """Each term of a micro-batch, before its weight; over micro-batches they add up, over processes take the mean.
        `match_accuracy` is among them, which is no term but to be watched.

        Args:
            globals_seen: by the student, of the global crops (g, then b).
            locals_seen: of the local crops (l, then b); `None` without any.
            goal: of this micro-batch.
            gram: patch tokens of the Gram teacher; `None` where that term does not count.
            shown: what the distilled encoder says of the global crops; `None` where that term does not count.
            directions_seed: the same on all processes.
        """
        config, shares = self.config, goal.shares
        g, b = shares.hidden.shape[:2]
        found: dict[str, Tensor] = {}
        if goal.cls is not None:
            logits = _views(b, globals_seen.cls_logits, None if locals_seen is None else locals_seen.cls_logits)
            found["dino"] = dino_loss(
                logits, goal.cls, shares.pairs, student_temp=config.dino.student_temp, total=goal.pair_total
            )
        if goal.patches is not None and globals_seen.patch_logits is not None:
            found["ibot"] = ibot_loss(
                globals_seen.patch_logits,
                goal.patches,
                shares.tokens.values[shares.hidden],
                total=goal.token_total,
                student_temp=config.ibot.student_temp,
            )
        if config.koleo.weight:
            views = globals_seen.cls.unflatten(0, (g, b))
            each = [
                koleo_loss(view, weights=weights, ranks=self.ranks, across_ranks=config.koleo.across_ranks)
                for view, weights in zip(views, shares.crops[:g], strict=True)
            ]
            found["koleo"] = torch.stack(each).sum() / goal.micro
        if gram is not None:
            found["gram"] = gram_loss(
                globals_seen.patches, gram, weights=shares.counted.flatten(0, 1).float(), total=goal.crop_total
            )
        if shown is not None:
            found |= self._distilled(globals_seen, shown, goal)
        if config.match.weight and shares.matches is not None:
            places = shares.matches
            matched = match_loss(
                globals_seen.patches.unflatten(0, (g, b)),
                pairs=places.pairs,
                cells=places.cells,
                valid=places.valid,
                source=places.source,
                grid=places.grid,
                total=goal.match_total,
                temperature=config.match.temperature,
                radius=config.match.radius,
                others=config.match.others,
                usable=shares.counted & ~shares.hidden,
                generator=torch.Generator().manual_seed(directions_seed),
            )
            found["match"], found["match_accuracy"] = matched.loss, matched.right
        if config.sigreg.weight:
            embeddings = _views(b, globals_seen.embeddings, None if locals_seen is None else locals_seen.embeddings)
            generator = torch.Generator().manual_seed(directions_seed)
            both = sigreg_terms(
                embeddings,
                random_directions(embeddings.shape[-1], config.sigreg.slices, generator=generator),
                n_globals=g,
                weights=shares.crops,
                knots=config.sigreg.knots,
                reach=config.sigreg.reach,
                ranks=self.ranks,
            )
            found["sigreg_normality"] = both.normality / goal.micro
            found["sigreg_agreement"] = both.agreement / goal.micro
        return found

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The loss: the sum of the terms, each by its weight."""
        config = self.config
        weights = {
            "dino": config.dino.weight,
            "ibot": config.ibot.weight,
            "koleo": config.koleo.weight,
            "gram": config.gram.weight,
            "sigreg_normality": config.sigreg.weight * config.sigreg.share,
            "sigreg_agreement": config.sigreg.weight * (1 - config.sigreg.share),
            "match": config.match.weight,
            "match_accuracy": 0.0,
            "distil": config.distil.weight,
            "distil_across": config.distil.weight * config.distil.across,
            "distil_cls": config.distil.weight * config.distil.cls,
        }
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    def _distilled(self, seen: Seen, shown: Shown, goal: Goal) -> dict[str, Tensor]:
        """Terms of the distilled encoder: on the same crop, across views, and of class tokens."""
        assert seen.like is not None, "asked for where the term counts"
        shares, config = goal.shares, self.config.distil
        g, b = shares.hidden.shape[:2]
        found = {
            "distil": distil_loss(
                seen.like,
                shown.patches.flatten(0, 1),
                weights=shares.counted.flatten(0, 1),
                total=goal.like_total,
            )
        }
        if config.across:
            places = shares.matches
            assert places is not None, "found where a term asks for them"
            mine = seen.like.unflatten(0, (g, b))[[one for one, _ in places.pairs]]
            found["distil_across"] = distil_loss(
                mine.flatten(0, 1),
                across(shown, places).flatten(0, 1),
                weights=places.valid.flatten(0, 1),
                total=goal.match_total,
            )
        if config.cls:
            assert shown.cls is not None, "an encoder without class tokens was refused"
            assert seen.like_cls is not None, "asked for where the term counts"
            counted = shares.counted.any(-1).flatten()[None]
            found["distil_cls"] = distil_loss(
                seen.like_cls[None], shown.cls.flatten(0, 1)[None], weights=counted, total=goal.crop_total
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        """What this process remembers."""
        return {"cls": self._cls_queue.state_dict(), "patches": self._patch_queue.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back what `state_dict` gave."""
        for queue, held in ((self._cls_queue, state["cls"]), (self._patch_queue, state["patches"])):
            queue.load_state_dict({name: rows.to(device) for name, rows in held.items()})

    def _cls_targets(
        self, taught: Sequence[Taught], shares: Sequence[Shares], temperature: float
    ) -> Sequence[Tensor | None]:
        logits = [one.cls for one in taught if one.cls is not None]
        if not logits:
            return [None] * len(taught)
        rows = torch.cat([one.flatten(0, 1) for one in logits])
        used = [
            one.crops[: len(rows_of)] * (one.pairs.values.sum(0) > 0)
            for one, rows_of in zip(shares, logits, strict=True)
        ]
        weights = torch.cat([one.flatten() for one in used])
        targets = sinkhorn(
            rows,
            temperature=temperature,
            iterations=self.config.sinkhorn.iterations,
            row_weights=weights,
            queue=self._cls_queue.rows,
            ranks=self.ranks,
        )
        self._cls_queue.push(rows[weights > 0])
        parts = targets.split([one.shape[0] * one.shape[1] for one in logits])
        return [part.reshape(one.shape) for part, one in zip(parts, logits, strict=True)]

    def _patch_targets(
        self, taught: Sequence[Taught], shares: Sequence[Shares], temperature: float
    ) -> Sequence[Tensor | None]:
        logits = [one.patches for one in taught if one.patches is not None]
        if not logits:
            return [None] * len(taught)
        rows = torch.cat(logits)
        counted = torch.cat([one.counted[one.hidden] for one in shares])
        background = None
        if self.config.foreground.patches == "prototype":
            background = torch.cat([one.background[one.hidden] for one in shares if one.background is not None])
        targets = patch_targets(
            rows,
            temperature=temperature,
            iterations=self.config.sinkhorn.iterations,
            counted=counted,
            background=background,
            queue=self._patch_queue.rows,
            ranks=self.ranks,
        )
        self._patch_queue.push(rows[counted if background is None else counted & ~background])
        parts: tuple[Tensor, ...] = targets.split([len(one) for one in logits])
        return parts


def _matched(shares: Shares) -> Tensor:
    """How many matches count."""
    return shares.hidden.new_zeros((), dtype=torch.int64) if shares.matches is None else shares.matches.valid.sum()


def _views(b: int, large: Tensor | None, small: Tensor | None) -> Tensor:
    """What is said of all views of a sample, globals first: (s, b, k)."""
    assert large is not None, "a head stands where its term counts"
    both = large if small is None else torch.cat([large, small])
    views: Tensor = both.unflatten(0, (-1, b))
    return views
