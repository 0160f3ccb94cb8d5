"""The monitor of a run: takes in the numbers of each step, looks at features now and then, and gives a verdict.

Axes: v global views, b samples, n tokens, k prototypes, d features.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.pretrain.monitors import metrics, probes
from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.monitors.verdict import Judge, Verdict
from patchatlas.pretrain.monitors.window import FeatureQueue, RowWindow

_AT_MOST = 1024
"""Of the rows held, so many of the last are enough for numbers whose cost grows with pairs or waves."""

_RECENT = frozenset({"below_ratio", "twins"})
"""What is judged by its mean over the steps since the last look."""


class Monitor:
    """State that lives along a run; one a process, of which that of rank 0 speaks.

    Call `see_rows` and `see_features` in every step with what the teacher gave, then `update` with the step's numbers.
    All work on detached copies and draw no random numbers but from (seed, step), so a run is the same without them.
    """

    def __init__(self, config: MonitorConfig, *, seed: int = 0, warm_up: int = 0) -> None:
        """Start with nothing seen.

        Args:
            config: limits and how often to look.
            seed: of the run.
            warm_up: step to judge from, for configs that do not say `from_step`.
        """
        self._config = config
        self._seed = seed
        self._window = RowWindow(config.window_rows)
        self._queues = {kind: FeatureQueue(config.queue_tokens) for kind in ("fg", "bg", "cls", "ratio")}
        self._from_step = warm_up if config.from_step is None else config.from_step
        self._judge = Judge(config, from_step=self._from_step)
        self._best_rank = 0.0
        self._first_r2: float | None = None
        self._recent: dict[str, tuple[float, int]] = {}
        """By number of `_RECENT`, its sum since the last look and how often it was given."""
        self.numbers: dict[str, float] = {}
        """All numbers of the last update: those given, and those of the features on a step with a look."""

    def see_rows(self, logits: Float[Tensor, "n k"], *, temperature: float) -> None:
        """Teacher logits of class tokens before Sinkhorn, and the temperature of the teacher."""
        self._window.push(logits, temperature=temperature)

    @torch.no_grad()
    def see_features(
        self,
        step: int,
        class_tokens: Float[Tensor, "v b d"] | None,
        tokens: Float[Tensor, "v b n d"],
        *,
        token_foreground: Float[Tensor, "v b n"],
        ratio: Float[Tensor, "v b"],
        threshold: float = 0.05,
        pad: Bool[Tensor, "v b n"] | None = None,
    ) -> None:
        """The teacher's tokens of the globals, and how much foreground there is in each patch and crop; no class tokens
        where nothing trains them.

        At most `tokens_a_step` patch tokens of each kind are held on to, drawn from (seed, step). Those with more than
        half foreground stand for the body, those with less than `threshold` for the background.
        """
        if class_tokens is not None:
            self._queues["cls"].push(class_tokens.transpose(0, 1))
            self._queues["ratio"].push(ratio.transpose(0, 1))
        drawn_from = np.random.SeedSequence((self._seed, step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(drawn_from) >> 1)
        real = torch.ones_like(token_foreground, dtype=torch.bool) if pad is None else ~pad
        for kind, chosen in (("fg", token_foreground > 0.5), ("bg", token_foreground < threshold)):
            places = (chosen & real).flatten().nonzero()[:, 0]
            drawn = torch.randperm(len(places), generator=generator)[: self._config.tokens_a_step]
            self._queues[kind].push(tokens.flatten(0, 2)[places[drawn.to(places.device)]])

    def update(
        self, step: int, observations: Mapping[str, float], *, prototypes: Float[Tensor, "k d"] | None = None
    ) -> Verdict:
        """The verdict on a step.

        Args:
            step: of the optimiser, counted from 0.
            observations: by name. Rules know `row_entropy`, `dino_share`, `kl` and `koleo_closest` (`metrics`),
                `koleo`, `below_ratio` (`metrics.crop_numbers`) and `initial_std` (`probes.relative_std`, before the
                first step); all others, losses and norms of gradients among them, only have to be finite.
            prototypes: weights of the DINO head, to look for doubles on a step with a look.
        """
        looked = (step + 1) % self._config.spectra_every == 0
        self.numbers = dict(observations)
        seen = dict(observations)
        if "koleo_closest" in seen:
            seen["twins"] = float(seen["koleo_closest"] > metrics.EQUAL)
        for name in _RECENT & seen.keys():
            total, count = self._recent.get(name, (0.0, 0))
            self._recent[name] = (total + seen[name], count + 1)
        if looked:
            self.numbers |= self._window.numbers() | self.look()
            if "fg_rank" in self.numbers and step >= self._from_step:
                self._best_rank = max(self._best_rank, self.numbers["fg_rank"])
                self.numbers["fg_rank_of_best"] = self.numbers["fg_rank"] / self._best_rank if self._best_rank else 0.0
            if "foreground_r2" in self.numbers:
                r2 = self.numbers["foreground_r2"]
                self._first_r2 = r2 if self._first_r2 is None else self._first_r2
                self.numbers["foreground_r2_left"] = probes.left_open(r2, self._first_r2)
            self.numbers |= {f"{name}_recent": total / count for name, (total, count) in sorted(self._recent.items())}
            self._recent = {}
            if prototypes is not None:
                self.numbers["duplicate_prototypes"] = metrics.duplicate_share(prototypes)
        return self._judge.judge(step, self.numbers, looked=looked)

    @property
    def suspected(self) -> int | None:
        """Step since which a collapse is suspected, see `verdict.Judge`."""
        return self._judge.suspected

    def still(self, verdict: Verdict) -> Verdict:
        """What is left of the verdict at a checkpoint, once that has been put back and the limits are others."""
        return self._judge.still(verdict)

    def look(self) -> dict[str, float]:
        """All numbers of the features held for which there are enough; NaN only where features are not finite."""
        held = {kind: queue.held for kind, queue in self._queues.items()}
        foreground, background, views, ratio = (held[kind] for kind in ("fg", "bg", "cls", "ratio"))
        flat = None if views is None else views.flatten(0, 1)
        broken = {
            f"{kind}_std": math.nan
            for kind, rows in (("fg", foreground), ("bg", background), ("cls", flat))
            if rows is not None and not bool(rows.isfinite().all())
        }
        if broken:
            return broken
        numbers: dict[str, float] = {}
        for kind, rows in (("fg", foreground), ("bg", background), ("cls", flat)):
            if rows is not None and len(rows) > 1:
                numbers |= _of_kind(kind, rows)
        if views is not None and flat is not None and ratio is not None:
            numbers |= _of_views(views)
            numbers["foreground_r2"] = probes.foreground_r2(flat, ratio.flatten(), together=views.shape[1])
        if foreground is not None and background is not None:
            numbers["background_share"] = probes.background_share(foreground, background)
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to say the same."""
        return {
            "window": self._window.state_dict(),
            "queues": {kind: queue.state_dict() for kind, queue in self._queues.items()},
            "judge": self._judge.state_dict(),
            "best_rank": self._best_rank,
            "first_r2": self._first_r2,
            "recent": self._recent,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._window.load_state_dict(state["window"])
        for kind, queue in self._queues.items():
            queue.load_state_dict(state["queues"][kind])
        self._judge.load_state_dict(state["judge"])
        self._best_rank = state["best_rank"]
        # States of before did not hold these: the next look is then the first, and of what is recent a part is missed.
        self._first_r2 = state.get("first_r2")
        self._recent = {name: (total, count) for name, (total, count) in state.get("recent", {}).items()}


def _of_kind(kind: str, rows: Tensor) -> dict[str, float]:
    """Numbers of one kind of features; ranks only of twice as many rows as features, else they count rows."""
    numbers = {f"{kind}_std": probes.spread(rows), f"{kind}_cosine": probes.mean_cosine(rows)}
    if len(rows) >= 2 * rows.shape[1]:
        numbers[f"{kind}_rank"] = probes.rankme(rows) / rows.shape[1]
        numbers[f"{kind}_alpha"] = probes.alpha_req(rows)
        numbers[f"{kind}_sigreg"] = probes.gaussian_test(rows[-_AT_MOST:])
    return numbers


def _of_views(views: Tensor) -> dict[str, float]:
    """Numbers of class tokens of several views of a sample, "m v d"."""
    numbers = {"cls_uniformity": probes.uniformity(views.flatten(0, 1)[-_AT_MOST:])}
    if views.shape[1] > 1:
        numbers["cls_alignment"] = probes.alignment(views)
        if len(views) >= 2 * views.shape[2]:
            numbers["cls_lidar"] = probes.lidar(views) / views.shape[2]
    return numbers
