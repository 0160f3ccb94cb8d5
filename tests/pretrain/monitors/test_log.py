"""The log of a run: what is in a line, what a kill leaves behind, and what a resumed run does with it."""

import json
import math
import sys
from pathlib import Path

import pytest

from patchatlas.errors import FormatError, MissingExtraError
from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.monitors.log import JsonLines, TensorBoard, read_log
from patchatlas.pretrain.monitors.verdict import Judge


def test_a_line_a_step_and_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    numbers = {"loss": 1.5, "koleo": math.inf, "grad": math.nan}
    with JsonLines(path) as log:
        log.write(3, numbers, Judge(MonitorConfig()).judge(3, numbers, looked=False))
        assert len(path.read_text().splitlines()) == 1  # on the disk before the file is closed
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["numbers"]["koleo"] == "inf"
    assert [alarm["rule"] for alarm in record["verdict"]["alarms"]] == ["not_finite", "koleo"]
    (read,) = read_log(path)
    assert read["step"] == 3
    assert read["numbers"]["loss"] == 1.5
    assert math.isnan(read["numbers"]["grad"])


def test_a_resumed_run_goes_on_where_its_checkpoint_is(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with JsonLines(path) as log:
        for step in range(6):
            log.write(step, {"loss": float(step)})
    with path.open("a") as handle:
        handle.write('{"step":6,"numb')  # the process was killed in this line
    assert [record["step"] for record in read_log(path)] == list(range(6))
    with JsonLines(path, resume_step=4) as log:
        log.write(4, {"loss": 40.0})
    assert [(record["step"], record["numbers"]["loss"]) for record in read_log(path)] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
    ]


def test_a_run_from_the_start_begins_a_log_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with JsonLines(path) as log:
            log.write(0, {"loss": 1.0})
    assert len(list(read_log(path))) == 1


@pytest.mark.parametrize("line", ["no json", "[1]", '{"step": 1}', '{"step": 1, "numbers": {"a": "b"}}'])
def test_what_is_no_record_is_refused_by_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 0, "numbers": {{}}}}\n{line}\n')
    with pytest.raises(FormatError, match="line 2 is no record"):
        list(read_log(path))
    with pytest.raises(FormatError, match="line 2 is no record"):
        JsonLines(path, resume_step=1)
    assert path.read_text().endswith(f"{line}\n")  # nothing was lost


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard and its protobuf
def test_tensorboard_gets_the_numbers_and_changes_of_verdict(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `pretrain` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    judge = Judge(MonitorConfig())
    log = TensorBoard(tmp_path)
    for step in range(4):
        log.write(step, {"loss": float(step)}, judge.judge(step, {"loss": float(step)}, looked=False))
    log.close()
    log = TensorBoard(tmp_path, resume_step=2)
    for step, loss in ((2, 20.0), (3, math.nan)):
        log.write(step, {"loss": loss}, judge.judge(step, {"loss": loss}, looked=False))
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("loss")]
    assert scalars[:3] == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert scalars[3][0] == 3
    assert math.isnan(scalars[3][1])
    (text,) = events.Tensors("verdict/text_summary")
    assert b"not_finite" in text.tensor_proto.string_val[0]


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[pretrain\]"):
        TensorBoard(tmp_path)
