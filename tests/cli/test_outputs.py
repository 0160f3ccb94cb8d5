"""Names that would cost a person marks, masks or pictures are refused, wherever they lie; all others are free."""

from pathlib import Path

import pytest

from patchatlas.cli.outputs import require_free
from patchatlas.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Other photos than those of the command, some marked, in a folder of their own."""
    (tmp_path / "other").mkdir()
    for name in ("1.jpg", "2.JPEG", "scan", "a.b.png", "report", "1.jpg.json"):
        (tmp_path / "other" / name).touch()
    (tmp_path / "link.json").symlink_to("other/1.jpg.json")
    (tmp_path / "same").symlink_to("other")
    (tmp_path / "other" / "4.jpg").touch()
    (tmp_path / "other" / "4.jpg.json").symlink_to(tmp_path / "store.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name",
    [
        "other/1.jpg.json",
        "other/1.jpg.automark.json",
        "other/1.jpg.two.words.json",
        "other/1.jpg.meta.json",
        "other/1.jpg.JSON",
        "other/1.jpg.mask.png",
        "other/2.JPEG.json",
        "other/a.b.png.json",
        "other/4.jpg.json",
        "other/../other/1.jpg.json",
        "same/1.jpg.json",
        "link.json",
        "other/scan",
        "other/scan.json",
        "other/scan.mask.png",
    ],
)
def test_what_would_be_lost_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--audit .* would overwrite .*choose"):
        require_free("--audit", Path(name), inputs=[Path("same/scan")])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ["other/3.jpg.json", "1.jpg.json", "other/report.json", "other/1.json", "other/1.jpg.html", "other/.json"]
)
def test_all_else_is_free(name: str) -> None:
    require_free("--audit", Path(name), inputs=[Path("same/scan")])
