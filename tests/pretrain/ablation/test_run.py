"""An ablation from end to end: what it leaves behind, what is not done twice, what is refused at once."""

import json
import shutil

import pytest

from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import InputError, UsageError, WeightsError
from patchatlas.pretrain.ablation import run as run_module
from patchatlas.pretrain.ablation.run import RANDOM, RAW, RAW_HISTOGRAM, run_ablation
from patchatlas.pretrain.config import read_config
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.probe import score
from tests.pretrain.ablation.volumes import make_volumes, tiny_config

ARMS = ("uniform", "S1+S2+overlap")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return make_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def done(volumes, tmp_path_factory):
    cache, held = volumes
    output = tmp_path_factory.mktemp("ablation") / "out"
    told = []
    table = run_ablation(tiny_config(cache), ARMS, seeds=2, labelled=held, output=output, on_step=told.append)
    return cache, held, output, table, told


def test_rows_runs_and_files(done):
    _, _, output, table, told = done
    assert [row.name for row in table.rows] == [*ARMS, RAW, RAW_HISTOGRAM, RANDOM]
    for arm in ARMS:
        for seed in range(2):
            facts = json.loads((output / "runs" / arm / f"seed-{seed}" / "run.json").read_text())
            assert facts["done"] == 2
    assert load_encoder(output / "baselines" / "random-1.safetensors", device="cpu").spec.patch == (8, 8, 8)
    stored = json.loads((output / "ablation.json").read_text())
    assert stored == table.to_json()
    by_name = {row.name: row for row in table.rows}
    chosen = by_name["S1+S2+overlap"]
    assert {result.seed for result in chosen.results} == {0, 1}
    assert set(chosen.intervals) == {
        "knn",
        "linear",
        "row_entropy",
        "escape",
        "foreground_r2",
        "background_share",
        "rank",
        "cosine",
    }
    assert 0 < chosen.intervals["linear"].mean <= 1
    assert by_name[RAW].intervals["knn"].n == 1
    assert by_name[RANDOM].intervals["knn"].n == 2
    assert [(one.arm, one.seed, one.step) for one in told[:3]] == [
        ("uniform", 0, 1),
        ("uniform", 0, 2),
        ("S1+S2+overlap", 0, 1),
    ]
    assert told[-1].finished == told[-1].of - 1


def test_seeds_and_arms_make_a_difference(done):
    table = done[3]
    by_name = {row.name: row for row in table.rows}
    first, second = by_name["uniform"].results
    assert first.numbers["linear"] != second.numbers["linear"] or first.numbers["knn"] != second.numbers["knn"]
    assert by_name["S1+S2+overlap"].results[0].numbers != first.numbers


def test_what_is_finished_is_not_done_again_and_new_arms_join(done, monkeypatch):
    cache, held, output, table, _ = done
    trained = []

    def watched(config, folder, **options):
        trained.append((folder.parent.name, folder.name))
        return run_module_train(config, folder, **options)

    run_module_train = run_module.train
    monkeypatch.setattr(run_module, "train", watched)
    again = run_ablation(tiny_config(cache), ARMS, seeds=2, labelled=held, output=output)
    assert trained == []
    assert again.to_json() == table.to_json()
    joined = run_ablation(tiny_config(cache), (*ARMS, "sigreg"), seeds=1, labelled=held, output=output)
    assert trained == [("sigreg", "seed-0")]
    assert "row_entropy" not in joined.rows[2].intervals  # no teacher, no targets
    assert "linear" in joined.rows[2].intervals


def test_a_changed_probe_scores_again_without_training(volumes, tmp_path, monkeypatch):
    cache, held = volumes
    mine = tmp_path / "held"
    shutil.copytree(held, mine)
    base, output = tiny_config(cache), tmp_path / "out"
    before = run_ablation(base, ("uniform",), seeds=1, labelled=mine, output=output)
    log = output / "runs/uniform/seed-0/log.jsonl"
    written = log.read_bytes()
    for folder in ("volumes", "labels"):
        (mine / folder / "6.nii.gz").unlink()
    asked = []

    def watched(fit, test, *, classes):
        asked.append((len(fit.labels), len(test.labels), 0 in classes))
        return score(fit, test, classes=classes)

    monkeypatch.setattr(run_module, "score", watched)
    after = run_ablation(base, ("uniform",), seeds=1, labelled=mine, output=output)
    assert after.held == 3
    patches = 2 * 8 * 8  # of a volume; the first two are fitted on, the third is asked about, and air about nothing
    assert set(asked) == {(2 * patches, patches, False)}
    one, other = (found.rows[0].results[0].numbers for found in (before, after))
    assert one["background_share"] != other["background_share"]
    assert one["row_entropy"] == other["row_entropy"]
    assert log.read_bytes() == written


def test_killed_in_the_middle_it_goes_on(volumes, done, tmp_path):
    cache, held = volumes
    base = tiny_config(cache, train={"save_every": 1})

    def kill(told):
        if (told.arm, told.step) == ("S1+S2+overlap", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ablation(base, ARMS, seeds=1, labelled=held, output=tmp_path / "out", on_step=kill)
    stored = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [row["name"] for row in stored["rows"]] == ["uniform", RAW, RAW_HISTOGRAM, RANDOM]
    table = run_ablation(base, ARMS, seeds=1, labelled=held, output=tmp_path / "out")
    whole = {row.name: row.results[0] for row in done[3].rows}
    for row in table.rows:  # the same numbers as of runs that nothing stopped
        assert row.results[0].numbers == whole[row.name].numbers, row.name


def test_a_folder_of_another_ablation_or_of_something_else(done, tmp_path):
    cache, held, output, _, _ = done
    with pytest.raises(UsageError, match=r"ablation of other settings \(optim\.lr"):
        run_ablation(tiny_config(cache, optim={"lr": 0.5}), ARMS, seeds=2, labelled=held, output=output)
    with pytest.raises(UsageError, match=r"ablation of other settings \(monitor\.spectra_every"):
        run_ablation(tiny_config(cache, monitor={"spectra_every": 3}), ARMS, seeds=2, labelled=held, output=output)
    moved = tmp_path / "cache"
    shutil.copytree(cache, moved)
    with pytest.raises(UsageError, match=r"ablation of other settings \(data"):
        run_ablation(tiny_config(moved), ARMS, seeds=2, labelled=held, output=output)
    shutil.rmtree(moved)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"other files and no ablation \(letter\.txt\)"):
        run_ablation(tiny_config(cache), ARMS, seeds=1, labelled=held, output=tmp_path)


def test_mistakes_are_seen_before_anything_is_made(volumes, tmp_path):
    cache, held = volumes
    output = tmp_path / "out"
    base = tiny_config(cache, crops={"globals": {"size": 16, "foreground": -400}})
    for given, arms, seeds, said in (
        (base, ("uniform",), 1, "no foreground table 'hu>-400'"),
        (tiny_config(cache), ("uniform", "S9"), 1, "no part 'S9'"),
        (tiny_config(cache), ("S1", "S1"), 1, "each once"),
        (tiny_config(cache), (), 1, "each once"),
        (tiny_config(cache), ("S1",), 0, "0 seeds"),
    ):
        with pytest.raises(UsageError, match=said):
            run_ablation(given, arms, seeds=seeds, labelled=held, output=output)
    with pytest.raises(InputError, match="holds 0 volumes"):
        run_ablation(tiny_config(cache), ("uniform",), seeds=1, labelled=tmp_path, output=output)
    taught = tiny_config(cache, loss={"distil": {"weight": 1, "encoder": "absent.safetensors"}})
    with pytest.raises(WeightsError, match=r"loss\.distil\.encoder: absent\.safetensors does not exist"):
        run_ablation(taught, ("uniform",), seeds=1, labelled=held, output=output)
    assert not output.exists()


def test_an_encoder_is_distilled_into_every_arm_but_that_of_sigreg_alone(volumes, done, tmp_path):
    cache, held = volumes
    _, _, finished, _, _ = done
    encoder = finished / "baselines" / "random-1.safetensors"
    taught = tiny_config(cache, loss={"distil": {"weight": 1, "encoder": str(encoder)}})
    run_ablation(taught, ("uniform", "sigreg"), seeds=1, labelled=held, output=tmp_path / "out")
    for arm, distils in (("uniform", True), ("sigreg", False)):
        (first, *_) = read_log(tmp_path / "out" / "runs" / arm / "seed-0" / "log.jsonl")
        assert ("distil" in first["numbers"]) == distils
    assert read_config(tmp_path / "out" / "config.yaml").loss.distil.stamp is not None


def test_a_run_that_broke_has_its_verdict_and_no_probe(volumes, tmp_path):
    cache, held = volumes
    base = tiny_config(cache, optim={"lr": 1e30, "warmup": 0, "clip": 1e30, "momentum": 0.0})
    table = run_ablation(base, ("uniform",), seeds=1, labelled=held, output=tmp_path / "out")
    row = table.rows[0]
    assert row.results[0].worst == "collapse"
    assert "knn" not in row.intervals  # features are not finite
    assert "collapse (not_finite" in table.to_markdown()
