"""From numbers to a verdict: which collapse it is, in a plain sentence, and what to change.

A rule looks at numbers by name, those of one step or those of the features held. It is alarmed where its limit says so,
and speaks once it has been for as long as it must: at once, for a number of steps, or for a number of looks. What is
seen of a network before its first step is said until the run is judged by what it has learnt.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from patchatlas.pretrain.monitors.config import Limits, MonitorConfig

Level = Literal["ok", "warn", "collapse"]
Wait = Literal["once", "start", "steps", "looks"]
Numbers = Mapping[str, float]

_WORSE: dict[Level, int] = {"ok": 0, "warn": 1, "collapse": 2}


def in_words(level: str, *, judged_from: int) -> str:
    """A level for people, who are not to take for sound what has not been judged.

    Args:
        level: of a verdict.
        judged_from: step from which on all rules are heeded, of a verdict before it; else 0.
    """
    return f"not judged before step {judged_from}" if level == "ok" and judged_from else level


@dataclass(frozen=True)
class Alarm:
    """One rule that speaks."""

    rule: str
    """Name of the collapse or fault: uniform, mode, dimensional, complete, not_finite, koleo, air and so on."""
    level: Level
    since: int
    """Step on which its numbers became alarming."""
    why: str
    change: str


@dataclass(frozen=True)
class Verdict:
    """What the monitors say of a step."""

    step: int
    level: Level
    alarms: tuple[Alarm, ...] = ()
    """Worst first; then in the order of the rules."""
    judged_from: int = 0
    """Step from which on all rules are heeded; before it only those of faults that are seen at once."""

    @property
    def word(self) -> str:
        """The level, as `in_words` says it."""
        return in_words(self.level, judged_from=self.judged_from if self.step < self.judged_from else 0)

    @property
    def why(self) -> str:
        """What is wrong, most serious first; empty if nothing is."""
        return " ".join(alarm.why for alarm in self.alarms)

    @property
    def change(self) -> str:
        """What to change, for the most serious; empty if nothing is wrong."""
        return self.alarms[0].change if self.alarms else ""

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        if self.level == "ok":
            early = self.step < self.judged_from
            return f"step {self.step}: {f'no fault seen at once; all else is {self.word}' if early else 'ok'}"
        return f"step {self.step}: {self.level} ({', '.join(alarm.rule for alarm in self.alarms)}). " + (
            f"{self.why} {self.change}"
        )

    def to_json(self) -> dict[str, object]:
        """For the log; with `judged_from` if the step lies before it."""
        alarms = [
            {"rule": alarm.rule, "level": alarm.level, "since": alarm.since, "why": alarm.why, "change": alarm.change}
            for alarm in self.alarms
        ]
        early = {"judged_from": self.judged_from} if self.step < self.judged_from else {}
        return {"level": self.level, "alarms": alarms, **early}


@dataclass(frozen=True)
class Rule:
    """When one kind of fault is seen, and what is said of it."""

    name: str
    level: Level
    wait: Wait
    needs: tuple[str, ...]
    """Numbers without which it keeps its peace."""
    alarmed: Callable[[Numbers, Limits], bool]
    why: str
    """With the numbers in braces, by name."""
    change: str
    also: tuple[str, ...] = ()
    """Numbers that it heeds where all of them are there."""
    why_also: str = ""
    """Said too, where they are."""

    def seen(self, numbers: Numbers) -> dict[str, float]:
        """Those of the numbers that it goes by."""
        also = self.also if all(math.isfinite(numbers.get(name, math.nan)) for name in self.also) else ()
        return {name: numbers[name] for name in (*self.needs, *also)}

    def said(self, seen: Numbers) -> str:
        """Why, of the numbers that `seen` gave."""
        text = self.why + self.why_also if set(self.also) <= seen.keys() else self.why
        return text.format_map(dict(seen))


def _above(name: str, limit: str) -> Callable[[Numbers, Limits], bool]:
    return lambda numbers, limits: (at := getattr(limits, limit)) is not None and numbers[name] > at


def _below(name: str, limit: str) -> Callable[[Numbers, Limits], bool]:
    return lambda numbers, limits: (at := getattr(limits, limit)) is not None and numbers[name] < at


def _both(*conditions: Callable[[Numbers, Limits], bool]) -> Callable[[Numbers, Limits], bool]:
    return lambda numbers, limits: all(condition(numbers, limits) for condition in conditions)


def _stuck(numbers: Numbers, limits: Limits) -> bool:
    if limits.stuck_loss is None:
        return False
    return abs(numbers["dino_share"] - 1) < limits.stuck_loss and abs(numbers["kl"]) < limits.stuck_kl


_air_in_cls = _above("foreground_r2", "foreground_r2")
_air_in_patches = _above("background_share", "background_share")
_air = _both(_air_in_cls, _air_in_patches)


def _mostly_air(numbers: Numbers, limits: Limits) -> bool:
    """One sign of air, not both; of class tokens only where training made it so, for untrained ones say it too.

    Where nothing trains class tokens, patch tokens alone tell.
    """
    if "foreground_r2" not in numbers:
        return _air_in_patches(numbers, limits)
    learnt = _air_in_cls(numbers, limits) and _below("foreground_r2_left", "foreground_r2_left")(numbers, limits)
    return not _air(numbers, limits) and (learnt or _air_in_patches(numbers, limits))


def _off_slope(numbers: Numbers, limits: Limits) -> bool:
    return limits.alpha is not None and not limits.alpha[0] <= numbers["fg_alpha"] <= limits.alpha[1]


_SEE_MORE = "Draw crops that hold more of the body, and share more of it"
_SMALLER_STEPS = "Lower the learning rate or the weight decay, and resume from the last good checkpoint (--from-good)"


def _of_features(kind: str, words: str) -> tuple[Rule, ...]:
    """The rules of complete collapse for one kind of features."""
    std, cosine = f"{kind}_std", f"{kind}_cosine"
    equal = _both(_below(std, "feature_std"), _above(cosine, "feature_cosine"))
    return (
        Rule(
            f"complete_{kind}",
            "collapse",
            "looks",
            (std, cosine),
            equal,
            f"All {words} are nearly equal: standard deviation {{{std}:.3g}} of 1, mean cosine {{{cosine}:.3g}}.",
            f"{_SMALLER_STEPS}; raise koleo.weight, and check that the window of the inputs shows tissue.",
        ),
        Rule(
            f"narrow_{kind}",
            "warn",
            "looks",
            (std, cosine),
            lambda numbers, limits: (
                not equal(numbers, limits)
                and (_below(std, "feature_std")(numbers, limits) or _above(cosine, "feature_cosine")(numbers, limits))
            ),
            f"The {words} lie close together: standard deviation {{{std}:.3g}} of 1, mean cosine {{{cosine}:.3g}}.",
            "Watch whether it goes on; a higher koleo.weight spreads class tokens.",
        ),
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "koleo",
        "collapse",
        "once",
        ("koleo",),
        lambda numbers, limits: (
            math.isinf(numbers["koleo"]) or (limits.koleo is not None and numbers["koleo"] > limits.koleo)
        ),
        "KoLeo is {koleo:.3g}: class tokens of different crops in a batch are equal.",
        "Check that no crop is in the batch twice and that crops are not all air; lower the learning rate.",
    ),
    Rule(
        "twins",
        "warn",
        "once",
        ("twins_recent",),
        _above("twins_recent", "twins"),
        "In {twins_recent:.0%} of the last steps two crops of a batch had the same class token: their KoLeo is "
        "infinite, but for its floor.",
        "Check that no crop is in the batch twice and that crops are not all air.",
    ),
    Rule(
        "uniform",
        "collapse",
        "steps",
        ("row_entropy",),
        _above("row_entropy", "row_entropy"),
        "The teacher's targets say nothing: their entropy is {row_entropy:.4f} of ln K, the same for every crop.",
        f"{_SEE_MORE}: foreground sampler on, locals as subsets of globals, overlap of globals 0.3 or more. Lower the "
        "teacher's temperature, use fewer prototypes or more rows (sinkhorn.queue_rows).",
    ),
    Rule(
        "stuck",
        "warn",
        "steps",
        ("dino_share", "kl"),
        _stuck,
        "The DINO loss stays at {dino_share:.4f} of ln K and the student differs from the teacher by {kl:.2g} nats: "
        "there is nothing to learn from these targets.",
        f"{_SEE_MORE}, or lower the teacher's temperature.",
    ),
    Rule(
        "mode",
        "collapse",
        "looks",
        ("marginal_entropy",),
        _below("marginal_entropy", "marginal_entropy"),
        "A few prototypes take nearly all crops: the entropy of their use is {marginal_entropy:.3f} of ln K.",
        f"{_SMALLER_STEPS}; give Sinkhorn more rows (sinkhorn.queue_rows), and raise the teacher's temperature.",
    ),
    Rule(
        "dead_prototypes",
        "warn",
        "looks",
        ("dead_prototypes",),
        _above("dead_prototypes", "dead_prototypes"),
        "{dead_prototypes:.0%} of the prototypes are nearest to no crop.",
        "Use fewer prototypes, or more rows a step (larger batch, accumulation, sinkhorn.queue_rows).",
    ),
    Rule(
        "duplicate_prototypes",
        "warn",
        "looks",
        ("duplicate_prototypes",),
        _above("duplicate_prototypes", "duplicate_prototypes"),
        "{duplicate_prototypes:.0%} of the prototypes have a double.",
        "Use fewer prototypes.",
    ),
    *_of_features("fg", "foreground patch tokens"),
    *_of_features("cls", "class tokens"),
    Rule(
        "dimensional",
        "collapse",
        "looks",
        ("fg_rank",),
        _below("fg_rank", "rank"),
        "Foreground tokens use few directions: RankMe is {fg_rank:.3f} of their length.",
        f"{_SMALLER_STEPS}; raise koleo.weight, or add sigreg.",
    ),
    Rule(
        "falling_rank",
        "warn",
        "looks",
        ("fg_rank", "fg_rank_of_best"),
        _below("fg_rank_of_best", "rank_of_best"),
        "RankMe of the foreground tokens has fallen to {fg_rank_of_best:.2f} of its best.",
        "Resume from a checkpoint near the best with a lower learning rate, or raise koleo.weight.",
    ),
    Rule(
        "lidar",
        "warn",
        "looks",
        ("cls_lidar",),
        _below("cls_lidar", "lidar"),
        "Views of a crop agree on few directions: LiDAR is {cls_lidar:.3f} of the length of a class token.",
        f"{_SEE_MORE}; weaken the augmentations if views agree on little. Views that agree on nothing, as noise would, "
        "do not show here but in cls_alignment near 2.",
    ),
    Rule(
        "slope",
        "warn",
        "looks",
        ("fg_alpha",),
        _off_slope,
        "The eigenvalues of the foreground tokens fall with slope {fg_alpha:.2f}; 1 to 3 is healthy.",
        "Above: too few directions, as for dimensional collapse. Below: features near noise, train longer.",
    ),
    Rule(
        "uniformity",
        "warn",
        "looks",
        ("cls_uniformity",),
        _above("cls_uniformity", "uniformity"),
        "Class tokens crowd on the sphere: uniformity is {cls_uniformity:.2f}, where 0 is collapse and -4 the best.",
        "Raise koleo.weight.",
    ),
    Rule(
        "sigreg",
        "warn",
        "looks",
        ("cls_sigreg",),
        _above("cls_sigreg", "sigreg"),
        "Class tokens are far from a round Gaussian: the test is {cls_sigreg:.1f} times what a Gaussian gives.",
        "Raise sigreg.weight or sigreg.share.",
    ),
    Rule(
        "air",
        "collapse",
        "looks",
        ("foreground_r2", "background_share"),
        _air,
        "The network tells air from body and little else: class tokens say the share of foreground "
        "(R^2 {foreground_r2:.2f}), which also makes {background_share:.0%} of the variance of patch tokens.",
        "Raise min_foreground_ratio and foreground_crop_prob of the crops; check that the window shows soft tissue.",
    ),
    Rule(
        "mostly_air",
        "warn",
        "looks",
        ("background_share",),
        _mostly_air,
        "Much of what features say is how much air there is: it makes {background_share:.0%} of the variance of patch "
        "tokens.",
        "Raise min_foreground_ratio and foreground_crop_prob of the crops; check that the window shows soft tissue.",
        also=("foreground_r2", "foreground_r2_left"),
        why_also=" Class tokens leave {foreground_r2_left:.2f} times as much of the foreground ratio open as at the "
        "first look (R^2 {foreground_r2:.2f}).",
    ),
    Rule(
        "below_ratio",
        "warn",
        "looks",
        ("below_ratio_recent",),
        _above("below_ratio_recent", "below_ratio"),
        "{below_ratio_recent:.1%} of the crops hold less foreground than was asked for.",
        "Lower min_foreground_ratio or the size of the crops, or leave out the volumes that the records name.",
    ),
    Rule(
        "input_blind",
        "warn",
        "start",
        ("initial_std",),
        _below("initial_std", "initial_std"),
        "Before the first step the class token hardly depends on its input: relative standard deviation "
        "{initial_std:.2g}.",
        "Leave LayerScale out, or start it at 1e-2.",
    ),
)
"""All rules but the first, that every number is finite, which `Judge` adds. Most serious first within a level."""


_Seen = tuple[int, int, str, dict[str, float]]
"""Of a rule that is alarmed: step since, times seen, what it said last, and of which numbers."""


class Judge:
    """Applies the rules step by step and remembers since when each is alarmed. State that lives, for checkpoints."""

    def __init__(self, config: MonitorConfig, *, from_step: int = 0) -> None:
        self._config = config
        self._from_step = from_step
        self._alarmed: dict[str, _Seen] = {}
        """By rule."""

    def judge(self, step: int, numbers: Numbers, *, looked: bool) -> Verdict:
        """The verdict on the numbers of a step.

        Args:
            step: of the optimiser.
            numbers: by name; a rule whose numbers are not among them stands as it stood.
            looked: whether the numbers of features are of this step.
        """
        alarms = []
        broken = sorted(
            name
            for name, value in numbers.items()
            if math.isnan(value) or (math.isinf(value) and name != "koleo")  # which has a rule of its own
        )
        if broken:
            named = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
            alarms.append(
                Alarm(
                    "not_finite",
                    "collapse",
                    step,
                    f"Not a finite number: {named}.",
                    f"{_SMALLER_STEPS}; look for inputs that are not finite, and train in bf16, not fp16.",
                )
            )
        for rule in RULES:
            self._see(rule, step, numbers, looked=looked)
            if rule.name in self._alarmed and self._long_enough(rule, step):
                since, _, why, _ = self._alarmed[rule.name]
                alarms.append(Alarm(rule.name, rule.level, since, why, rule.change))
        return _verdict(step, alarms, judged_from=self._from_step)

    def still(self, verdict: Verdict) -> Verdict:
        """A verdict of before the state was put back, less the alarms that `load_state_dict` let go."""
        held = [alarm for alarm in verdict.alarms if alarm.rule in self._alarmed or alarm.rule == "not_finite"]
        return _verdict(verdict.step, held, judged_from=verdict.judged_from)

    def _see(self, rule: Rule, step: int, numbers: Numbers, *, looked: bool) -> None:
        if rule.wait == "start" and step >= max(1, self._from_step):
            self._alarmed.pop(rule.name, None)
            return
        if any(name not in numbers for name in rule.needs) or (rule.wait == "looks" and not looked):
            return
        if rule.wait in ("steps", "looks") and (
            step < self._from_step or any(not math.isfinite(numbers[name]) for name in rule.needs)
        ):
            return
        seen = rule.seen(numbers)
        if not rule.alarmed(seen, self._config.limits):
            self._alarmed.pop(rule.name, None)
            return
        since, times, *_ = self._alarmed.get(rule.name, (step, 0))
        self._alarmed[rule.name] = (since, times + 1, rule.said(seen), seen)

    def _long_enough(self, rule: Rule, step: int) -> bool:
        since, times, *_ = self._alarmed[rule.name]
        if rule.wait == "steps":
            return step - since + 1 >= self._config.patience
        return times >= (self._config.looks if rule.wait == "looks" else 1)

    @property
    def suspected(self) -> int | None:
        """Step since which a rule of collapse is alarmed, whether it speaks yet or not; the first if several are."""
        collapses = {rule.name for rule in RULES if rule.level == "collapse"}
        return min((since for rule, (since, *_) in self._alarmed.items() if rule in collapses), default=None)

    def state_dict(self) -> dict[str, _Seen]:
        """Since when each rule is alarmed, and by which numbers."""
        return dict(self._alarmed)

    def load_state_dict(self, state: Mapping[str, tuple[Any, ...]]) -> None:
        """Put back what `state_dict` gave, but for alarms that the limits of now do not give for the same numbers.

        Else a limit that was put right would count only from the next look on.
        """
        rules = {rule.name: rule for rule in RULES}
        self._alarmed = {}
        for name, (since, times, why, *rest) in state.items():
            seen = rest[0] if rest else {}  # states of before did not hold the numbers: the next look tells
            if not seen or (name in rules and rules[name].alarmed(seen, self._config.limits)):
                self._alarmed[name] = (since, times, why, seen)


def _verdict(step: int, alarms: list[Alarm], *, judged_from: int) -> Verdict:
    """Of all alarms, in the order of the rules."""
    alarms = sorted(alarms, key=lambda alarm: -_WORSE[alarm.level])
    level: Level = alarms[0].level if alarms else "ok"
    return Verdict(step=step, level=level, alarms=tuple(alarms), judged_from=judged_from)
