"""Planted collapses are named within the stated steps, healthy runs raise no alarm, and a resumed run says the same."""

import math

import pytest
import torch

from patchatlas.pretrain.monitors.config import Limits, MonitorConfig
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.monitors.verdict import RULES, Judge
from tests.pretrain.monitors.runs import CONFIG, B, V, run

STEPS_A_WINDOW = CONFIG.window_rows // (V * B)  # a sixteenth more, for the window moves in parts
LOOKS = CONFIG.looks * CONFIG.spectra_every
WITHIN = {
    "not_finite": 1,
    "koleo": 1,
    "uniform": CONFIG.patience,
    "mode": STEPS_A_WINDOW * 17 // 16 + LOOKS + CONFIG.spectra_every,
    "dimensional": CONFIG.queue_tokens // CONFIG.tokens_a_step + LOOKS + CONFIG.spectra_every,
    "complete_fg": CONFIG.queue_tokens // CONFIG.tokens_a_step + LOOKS + CONFIG.spectra_every,
    "air": CONFIG.queue_tokens // (V * B) + LOOKS + CONFIG.spectra_every,
    "below_ratio": LOOKS + CONFIG.spectra_every,
}
"""The steps that the documentation states, from its table."""


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        ("nan", "not_finite"),
        ("koleo", "koleo"),
        ("uniform", "uniform"),
        ("mode", "mode"),
        ("dimensional", "dimensional"),
        ("complete", "complete_fg"),
        ("air", "air"),
        ("below_ratio", "below_ratio"),
    ],
)
def test_a_planted_collapse_is_named_in_time(plant: str, rule: str) -> None:
    at = 25
    verdicts = run(at + WITHIN[rule], plant=plant, at=at)
    assert [verdict.level for verdict in verdicts[:at]] == ["ok"] * at
    last = verdicts[-1]
    assert rule in [alarm.rule for alarm in last.alarms]
    assert last.level == ("warn" if rule == "below_ratio" else "collapse")
    assert last.why
    assert last.change
    assert last.sentence.startswith(f"step {at + WITHIN[rule] - 1}: {last.level} (")


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_raises_no_alarm(seed: int) -> None:
    verdicts = run(120, seed=seed)
    assert {verdict.sentence for verdict in verdicts if verdict.level != "ok"} == set()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 10))
def test_a_long_healthy_run_raises_no_alarm(seed: int) -> None:
    assert {verdict.sentence for verdict in run(2000, seed=seed) if verdict.level != "ok"} == set()


def test_a_resumed_run_says_the_same() -> None:
    whole = run(85, plant="mode")
    monitor = Monitor(CONFIG)
    run(45, plant="mode", monitor=monitor)
    resumed = Monitor(CONFIG)
    resumed.load_state_dict(monitor.state_dict())
    assert run(85, plant="mode", monitor=resumed, first=45) == whole[45:]
    assert (whole[44].level, whole[-1].level) == ("ok", "collapse")


def test_a_checkpoint_holds_nothing_that_needs_pickle(tmp_path: object) -> None:
    monitor = Monitor(CONFIG)
    run(25, monitor=monitor)
    path = f"{tmp_path}/monitor.pt"
    torch.save(monitor.state_dict(), path)
    resumed = Monitor(CONFIG)
    resumed.load_state_dict(torch.load(path, weights_only=True))
    assert resumed.look() == monitor.look()


def test_the_monitor_draws_no_global_random_numbers() -> None:
    state = torch.get_rng_state()
    run(25)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_alarm_ends_with_its_cause() -> None:
    judge = Judge(MonitorConfig(patience=3))
    levels = [
        judge.judge(step, {"row_entropy": entropy}, looked=False).level
        for step, entropy in enumerate([1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 0.9])
    ]
    assert levels == ["ok"] * 5 + ["collapse"] * 2 + ["ok"]


def test_entropies_wait_for_the_warm_up_and_faults_do_not() -> None:
    monitor = Monitor(MonitorConfig(patience=2), warm_up=10)
    levels = [monitor.update(step, {"row_entropy": 1.0}).level for step in range(13)]
    assert levels == ["ok"] * 11 + ["collapse"] * 2
    assert Monitor(MonitorConfig(), warm_up=10).update(0, {"loss/dino": math.nan}).level == "collapse"
    own = Monitor(MonitorConfig(patience=1, from_step=1), warm_up=10)
    assert [own.update(step, {"row_entropy": 1.0}).level for step in range(2)] == ["ok", "collapse"]


def test_the_best_rank_is_that_since_the_warm_up() -> None:
    # Random weights may use more directions than trained ones ever will.
    monitor = Monitor(MonitorConfig(spectra_every=1, queue_tokens=64, tokens_a_step=64), warm_up=1)
    generator = torch.Generator().manual_seed(0)
    found = []
    for step, directions in enumerate([8, 2, 4, 2]):
        tokens = torch.zeros(1, 8, 8, 8)
        tokens[..., :directions] = torch.randn(1, 8, 8, directions, generator=generator)
        monitor.see_features(
            step, tokens[:, :, 0], tokens, token_foreground=torch.ones(1, 8, 8), ratio=torch.ones(1, 8)
        )
        monitor.update(step, {})
        found.append(monitor.numbers.get("fg_rank_of_best"))
    assert found[0] is None
    assert found[1:3] == [1, 1]
    assert found[3] == pytest.approx(0.5, abs=0.1)


def test_what_class_tokens_say_of_air_is_held_against_the_first_look() -> None:
    # Class tokens that know the ratio but for noise, which shrinks: R^2 of 0.5, then of more and more.
    monitor = Monitor(MonitorConfig(spectra_every=1, queue_tokens=200))
    generator = torch.Generator().manual_seed(0)
    left, open_ = [], []
    for step, noise in enumerate([1.0, 0.5, 0.1]):
        ratio = torch.rand(1, 200, generator=generator)
        cls = torch.randn(1, 200, 4, generator=generator)
        cls[..., 0] = (ratio - 0.5) * math.sqrt(12) + noise * cls[..., 0]
        monitor.see_features(step, cls, cls[:, :, None], token_foreground=torch.ones(1, 200, 1), ratio=ratio)
        monitor.update(step, {})
        open_.append(1 - monitor.numbers["foreground_r2"])
        left.append(monitor.numbers["foreground_r2_left"])
        resumed = Monitor(MonitorConfig(spectra_every=1, queue_tokens=200))
        resumed.load_state_dict(monitor.state_dict())
        monitor = resumed
    assert left == pytest.approx([one / open_[0] for one in open_])
    assert left[0] == 1
    assert left[1] == pytest.approx(0.4, abs=0.1)  # noise 0.5 leaves 0.2 open, noise 1 leaves 0.5
    assert left[2] < 0.05


def test_padding_is_neither_body_nor_air() -> None:
    monitor = Monitor(MonitorConfig())
    tokens = torch.arange(6.0).reshape(1, 1, 6, 1).expand(1, 1, 6, 4)
    share = torch.tensor([[[1.0, 1.0, 0.3, 0.0, 0.0, 0.0]]])
    pad = torch.tensor([[[False, True, False, False, True, True]]])
    monitor.see_features(0, tokens[:, :, 0], tokens, token_foreground=share, ratio=torch.ones(1, 1), pad=pad)
    queues = monitor.state_dict()["queues"]
    assert queues["fg"]["held"][:, 0].tolist() == [0]
    assert queues["bg"]["held"][:, 0].tolist() == [3]


def test_features_are_looked_at_every_so_many_steps() -> None:
    monitor = Monitor(MonitorConfig(spectra_every=3))
    looked = []
    for step in range(6):
        tokens = torch.randn(1, 4, 5, 8, generator=torch.Generator().manual_seed(step))
        monitor.see_features(
            step, tokens[:, :, 0], tokens, token_foreground=torch.ones(1, 4, 5), ratio=torch.ones(1, 4)
        )
        monitor.update(step, {"below_ratio": 0.1 * step})
        if "fg_std" in monitor.numbers:
            looked.append((step, round(monitor.numbers["below_ratio_recent"], 6)))
    assert looked == [(2, 0.1), (5, 0.4)]  # means of the steps since the last look


def test_twins_count_from_the_first_look_on_and_not_one_by_one() -> None:
    monitor = Monitor(MonitorConfig(spectra_every=10), warm_up=100)
    said = []
    for step in range(40):
        # One step of the first ten, four of the next, and no more; two crops that are close are not equal.
        closest = {3: 18.4, 12: 18.4, 14: 15.0, 15: 15.0, 17: 15.0, 33: 13.0, 34: 13.0}.get(step, 1.0)
        verdict = monitor.update(step, {"koleo_closest": closest})
        said.append([alarm.rule for alarm in verdict.alarms])
        resumed = Monitor(MonitorConfig(spectra_every=10), warm_up=100)
        resumed.load_state_dict(monitor.state_dict())
        monitor = resumed
    assert said == [[]] * 19 + [["twins"]] * 10 + [[]] * 11


def test_a_rule_of_features_counts_looks_and_not_steps() -> None:
    judge = Judge(MonitorConfig(looks=2))
    numbers = {"fg_rank": 0.1}
    levels = [judge.judge(step, numbers, looked=step in (0, 9)).level for step in range(11)]
    assert levels == ["ok"] * 9 + ["collapse"] * 2


def test_features_that_are_not_finite_are_named_and_not_measured() -> None:
    monitor = Monitor(MonitorConfig(spectra_every=1))
    tokens = torch.full((1, 2, 3, 4), torch.nan)
    monitor.see_features(0, tokens[:, :, 0], tokens, token_foreground=torch.ones(1, 2, 3), ratio=torch.ones(1, 2))
    verdict = monitor.update(0, {})
    assert verdict.alarms[0].rule == "not_finite"
    assert verdict.why == "Not a finite number: cls_std, fg_std."


def test_many_broken_numbers_are_counted_and_the_worst_comes_first() -> None:
    judge = Judge(MonitorConfig())
    numbers = {f"loss/{place}": math.nan for place in range(8)} | {"initial_std": 1e-5}
    verdict = judge.judge(0, numbers, looked=False)
    assert [alarm.rule for alarm in verdict.alarms] == ["not_finite", "input_blind"]
    assert "loss/4 and 3 more" in verdict.why
    assert verdict.to_json()["level"] == "collapse"


def test_a_limit_of_none_leaves_its_rule_out() -> None:
    limits = Limits(**dict.fromkeys(Limits.model_fields, None) | {"stuck_kl": 0.0, "feature_std": None})
    numbers = {name: 1e9 for rule in RULES for name in rule.needs}
    assert not any(rule.alarmed(numbers, limits) for rule in RULES)
    assert not any(rule.alarmed(dict.fromkeys(numbers, -1e9), limits) for rule in RULES)


def test_an_infinite_koleo_speaks_without_a_limit() -> None:
    judge = Judge(MonitorConfig(limits=Limits(koleo=None)))
    assert judge.judge(0, {"koleo": 18.0}, looked=False).level == "ok"
    assert [alarm.rule for alarm in judge.judge(1, {"koleo": math.inf}, looked=False).alarms] == ["koleo"]


AIR = {"foreground_r2": 0.95, "foreground_r2_left": 1.0, "background_share": 0.3}
"""Of crops from anywhere: class tokens say how much air there is, as they did before they learnt anything."""


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        ("koleo", {"koleo": 18.4}, {"koleo": 12.0}),
        ("twins", {"twins_recent": 0.2}, {"twins_recent": 0.05}),
        ("uniform", {"row_entropy": 0.995}, {"row_entropy": 0.98}),
        ("stuck", {"dino_share": 0.995, "kl": 0.001}, {"dino_share": 0.995, "kl": 0.1}),
        ("stuck", {"dino_share": 1.005, "kl": 0.001}, {"dino_share": 0.9, "kl": 0.001}),
        ("mode", {"marginal_entropy": 0.4}, {"marginal_entropy": 0.6}),
        ("dead_prototypes", {"dead_prototypes": 0.6}, {"dead_prototypes": 0.4}),
        ("duplicate_prototypes", {"duplicate_prototypes": 0.4}, {"duplicate_prototypes": 0.2}),
        ("complete_cls", {"cls_std": 0.2, "cls_cosine": 0.95}, {"cls_std": 0.2, "cls_cosine": 0.8}),
        ("narrow_cls", {"cls_std": 0.2, "cls_cosine": 0.8}, {"cls_std": 0.2, "cls_cosine": 0.95}),
        ("narrow_fg", {"fg_std": 0.4, "fg_cosine": 0.95}, {"fg_std": 0.4, "fg_cosine": 0.8}),
        ("dimensional", {"fg_rank": 0.1}, {"fg_rank": 0.3}),
        ("falling_rank", {"fg_rank": 0.3, "fg_rank_of_best": 0.4}, {"fg_rank": 0.3, "fg_rank_of_best": 0.6}),
        ("lidar", {"cls_lidar": 0.04}, {"cls_lidar": 0.1}),
        ("slope", {"fg_alpha": 5.1}, {"fg_alpha": 1.0}),
        ("slope", {"fg_alpha": 0.2}, {"fg_alpha": 4.9}),
        ("uniformity", {"cls_uniformity": -0.5}, {"cls_uniformity": -2.0}),
        ("sigreg", {"cls_sigreg": 11.0}, {"cls_sigreg": 9.0}),
        ("air", AIR | {"background_share": 0.6}, AIR | {"background_share": 0.5}),
        ("air", AIR | {"background_share": 0.6}, AIR | {"background_share": 0.6, "foreground_r2": 0.8}),
        ("mostly_air", AIR | {"background_share": 0.6, "foreground_r2": 0.8}, AIR | {"background_share": 0.5}),
        ("mostly_air", AIR | {"foreground_r2_left": 0.4}, AIR | {"foreground_r2_left": 0.6}),
        ("mostly_air", AIR | {"foreground_r2_left": 0.4}, AIR | {"foreground_r2_left": 0.4, "foreground_r2": 0.8}),
        ("mostly_air", AIR | {"foreground_r2_left": 0.4}, AIR | {"foreground_r2_left": 0.4, "background_share": 0.6}),
        ("mostly_air", {"background_share": 0.6}, {"background_share": 0.5}),  # no class tokens
        ("below_ratio", {"below_ratio_recent": 0.02}, {"below_ratio_recent": 0.005}),
        ("input_blind", {"initial_std": 1e-4}, {"initial_std": 0.1}),
    ],
)
def test_each_rule_at_its_limit(rule: str, bad: dict[str, float], good: dict[str, float]) -> None:
    judge = Judge(MonitorConfig(patience=1, looks=1, limits=Limits(sigreg=10.0)))
    alarms = judge.judge(0, bad, looked=True).alarms
    assert rule in [alarm.rule for alarm in alarms]
    assert all("{" not in alarm.why for alarm in alarms)
    assert rule not in [alarm.rule for alarm in judge.judge(1, good, looked=True).alarms]


def test_mostly_air_speaks_of_what_there_is() -> None:
    def said(numbers: dict[str, float]) -> str:
        return Judge(MonitorConfig(looks=1)).judge(0, numbers, looked=True).why

    patches = "Much of what features say is how much air there is: it makes 60% of the variance of patch tokens."
    assert said({"background_share": 0.6}) == patches
    both = said({"background_share": 0.6, "foreground_r2": 0.5, "foreground_r2_left": 0.7})
    assert both.startswith(f"{patches} Class tokens leave 0.70 times as much")


@pytest.mark.parametrize(
    ("limits", "level"),
    [(Limits(), "collapse"), (Limits(rank=None), "ok"), (Limits(rank=0.05), "ok"), (Limits(rank=0.15), "collapse")],
)
def test_a_resumed_run_drops_the_alarms_that_its_new_limits_do_not_give(limits: Limits, level: str) -> None:
    judge, resumed = Judge(MonitorConfig(looks=1)), Judge(MonitorConfig(looks=1, limits=limits))
    verdict = judge.judge(0, {"fg_rank": 0.1}, looked=True)
    resumed.load_state_dict(judge.state_dict())
    assert resumed.still(verdict).level == level
    assert resumed.suspected == (0 if level == "collapse" else None)
    assert resumed.judge(1, {}, looked=False).level == level  # long before the next look
    if limits == Limits():
        assert resumed.still(verdict) == verdict


def test_what_no_limit_says_stays_in_a_verdict_that_is_resumed() -> None:
    judge, resumed = Judge(MonitorConfig(looks=1)), Judge(MonitorConfig(looks=1, limits=Limits(rank=None)))
    verdict = judge.judge(0, {"fg_rank": 0.1, "loss": math.nan}, looked=True)
    resumed.load_state_dict(judge.state_dict())
    assert [alarm.rule for alarm in resumed.still(verdict).alarms] == ["not_finite"]


def test_every_rule_has_a_name_of_its_own() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)


def test_limits_that_run_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="from a lower to a higher"):
        MonitorConfig(limits=Limits(alpha=(2.0, 1.0)))
    with pytest.raises(ValueError, match="on_colapse"):
        MonitorConfig.model_validate({"on_colapse": "stop"})


def test_a_young_run_is_not_called_ok() -> None:
    monitor = Monitor(MonitorConfig(), warm_up=200)
    young, judged = monitor.update(199, {"row_entropy": 1.0}), monitor.update(200, {"row_entropy": 0.5})
    assert (young.level, judged.level) == ("ok", "ok")  # exit codes and what stops a run stay as they are
    assert young.sentence == "step 199: no fault seen at once; all else is not judged before step 200"
    assert young.to_json() == {"level": "ok", "alarms": [], "judged_from": 200}
    assert judged.sentence == "step 200: ok"
    assert judged.to_json() == {"level": "ok", "alarms": []}
    assert (young.word, judged.word) == ("not judged before step 200", "ok")
    broken = monitor.update(199, {"loss/dino": math.nan})
    assert broken.word == "collapse"
    assert broken.sentence.startswith("step 199: collapse (not_finite)")


def test_what_was_seen_before_the_first_step_is_said_until_the_run_is_judged() -> None:
    monitor = Monitor(MonitorConfig(), warm_up=10)
    seen = [monitor.update(step, {"initial_std": 1e-5} if step == 0 else {}).level for step in range(12)]
    assert seen == ["warn"] * 10 + ["ok"] * 2


def test_views_of_a_sample_are_left_out_of_a_fit_together() -> None:
    # Class tokens are alike within a sample, and so are ratios: nothing else joins the two.
    generator = torch.Generator().manual_seed(0)
    cls = torch.randn(100, 1, 48, generator=generator) + 0.05 * torch.randn(100, 2, 48, generator=generator)
    ratio = torch.rand(100, 1, generator=generator) + 0.02 * torch.randn(100, 2, generator=generator)
    monitor = Monitor(MonitorConfig(spectra_every=1))
    foreground = torch.ones(2, 100, 1)
    views = cls.transpose(0, 1)
    monitor.see_features(0, views, views[:, :, None], token_foreground=foreground, ratio=ratio.T)
    monitor.update(0, {})
    assert monitor.numbers["foreground_r2"] < 0
