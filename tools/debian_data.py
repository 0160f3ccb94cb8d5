"""Fetch, by name, the Debian packages whose pictures and volumes the tests use; also says where they are kept.

Nothing is installed: the package is downloaded with `apt-get download` and unpacked with `dpkg-deb -x`, and only the
files named below are kept, in $PATCHATLAS_DATA/PACKAGE (by default ~/.cache/patchatlas/debian/PACKAGE), so that one
download serves every checkout. Python's own library is enough to run this.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A Debian package and what of it is kept.

    Attributes:
        name: the package.
        kept: the folder inside the package whose content is kept.
        copyright: the file inside the package that states the licences; kept as `copyright` beside the data.
        needed: files that must be there, or the package is not the one that the tests were written for.
    """

    name: str
    kept: str
    copyright: str
    needed: tuple[str, ...]


PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="opencv-doc",
            kept="usr/share/doc/opencv-doc/examples/data",
            copyright="usr/share/doc/opencv-doc/copyright",
            needed=("graf1.png", "graf3.png", "H1to3p.xml", "aloeL.jpg", "aloeR.jpg", "aloeGT.png", "vtest.avi"),
        ),
        Package(  # the CT of a real head: never draw its face, never copy it into a repository
            name="invesalius-examples",
            kept="usr/share/doc/invesalius-examples/examples",
            copyright="usr/share/doc/invesalius-examples/copyright",
            needed=("Cranium.inv3",),
        ),
    )
}


class FetchError(Exception):
    """The package cannot be had; says why and what to do."""


def folder(name: str) -> Path:
    """Where the files of package `name` are kept, whether they have been fetched or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PATCHATLAS_DATA") or cache / "patchatlas" / "debian") / name


def fetch(package: Package) -> bool:
    """Download and unpack `package` unless it is there already; a killed run leaves nothing half done in its place.

    Returns:
        Whether it had to be downloaded.

    Raises:
        FetchError: it cannot be downloaded or does not hold what it should.
    """
    target = folder(package.name)
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package.name}.", dir=target.parent) as temporary:
        archive = download(package, Path(temporary))
        unpacked = Path(temporary) / "unpacked"
        run("dpkg-deb", "-x", str(archive), str(unpacked), cwd=Path(temporary))
        kept = unpacked / package.kept
        gunzip_all(kept)
        missing = [name for name in package.needed if not (kept / name).is_file()]
        if missing:
            raise FetchError(f"{archive.name} has no {', '.join(missing)} in {package.kept}; was it rearranged?")
        shutil.copy(unpacked / package.copyright, kept / "copyright")
        version = run("dpkg-deb", "--field", str(archive), "Version", cwd=Path(temporary)).strip()
        (kept / "version").write_text(version + "\n", encoding="utf-8")
        kept.rename(target)
    return True


def download(package: Package, into: Path) -> Path:
    """Download a package into the empty folder `into`, with new package lists where the old ones fail."""
    name = package.name
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise FetchError(
            f"{name} is a Debian package, and apt-get or dpkg-deb is not on this machine; on another system unpack the "
            f"package from Debian's archive and copy its {package.kept} to {folder(name)}"
        )
    try:
        run("apt-get", "download", name, cwd=into)
    except FetchError:
        run("apt-get", "update", cwd=into)
        run("apt-get", "download", name, cwd=into)
    archives = list(into.glob("*.deb"))
    if len(archives) != 1:
        raise FetchError(f"apt-get download {name} left {len(archives)} packages where one was expected")
    found = run("dpkg-deb", "--field", str(archives[0]), "Package", cwd=into).strip()
    if found != name:
        raise FetchError(f"apt-get download {name} gave the package {found}")
    return archives[0]


def run(*command: str, cwd: Path) -> str:
    """Run a command without input in `cwd` and give what it printed; `FetchError` with its own words where it fails."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FetchError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def gunzip_all(top: Path) -> None:
    """Replace each .gz file below `top` by its content (Debian packs larger documents so)."""
    for packed in top.rglob("*.gz"):
        with gzip.open(packed) as source, packed.with_suffix("").open("wb") as plain:
            shutil.copyfileobj(source, plain)
        packed.unlink()


def main() -> int:
    """Fetch every package; 1 if one cannot be had."""
    for package in PACKAGES.values():
        try:
            fetched = fetch(package)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        place = folder(package.name)
        print(f"{package.name}: {'fetched to' if fetched else 'already in'} {place} (licences: {place / 'copyright'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
