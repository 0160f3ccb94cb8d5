"""Progress where stderr is no terminal: a line now and then, and none from commands that are done at once."""

from rich.progress import TextColumn

from patchatlas.cli import console


def test_a_line_every_so_many_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress(TextColumn("{task.fields[rates]}")) as bar:
        task = bar.add_task("training", total=100, rates="")
        for done, second in ((1, 10), (2, 29), (3, 31), (4, 59), (5, 62)):
            now[0] = 100.0 + second
            bar.update(task, completed=done, description=f"loss {done}", rates="2 images/s")
    told = capsys.readouterr().err.splitlines()
    assert [line.split(", about")[0] for line in told] == [
        "loss 3: 3 of 100, 2 images/s",
        "loss 5: 5 of 100, 2 images/s",
    ]


def test_what_is_done_at_once_says_nothing(capsys):
    with console.progress() as bar:
        assert list(bar.track(range(3), description="drawing")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_times_that_are_left():
    assert [console._clock(seconds) for seconds in (9.4, 75.0, 3723.0)] == ["0:09", "1:15", "1:02:03"]
