"""The packages whose pictures were looked at for training the bundled encoder, and what each of them says of them.

Debian's packages name holder and licence of every file in their `copyright` file, which is read. Python's two name
them in docstrings and a readme, from which `WHEEL_TERMS` was written by hand.
"""

from dataclasses import dataclass

from tools.debian_data import Package


@dataclass(frozen=True)
class Wallpapers:
    """A Debian package of pictures.

    Attributes:
        package: what of it is kept.
        prefix: what the paths of its `copyright` file have before the path in the kept folder.
        folders: of these folders below the kept one, every JPEG and PNG is listed; `` is the kept folder itself.
    """

    package: Package
    prefix: str
    folders: tuple[str, ...] = ("",)


DEBIAN = (
    Wallpapers(
        Package(
            name="lomiri-wallpapers-16.04",
            kept="usr/share/backgrounds",
            copyright="usr/share/doc/lomiri-wallpapers-16.04/copyright",
            needed=("aitzgorri_by_Aitzol_Berasategi.jpg", "seeding_by_Clements_Engelhardt.jpg"),
        ),
        prefix="16.04/",
    ),
    Wallpapers(
        Package(
            name="endless-sky-data",
            kept="usr/share/games/endless-sky/images",
            copyright="usr/share/doc/endless-sky-data/copyright",
            needed=("land/mountain0.jpg", "scene/loc2.jpg"),
        ),
        prefix="images/",
        folders=("land", "scene"),
    ),
)


@dataclass(frozen=True)
class Refused:
    """A package that was looked at and is not fetched, because none of its pictures can be used.

    Attributes:
        name: the package, of Debian or PyPI.
        version: that was looked at.
        pictures: how many it has, about.
        licence: of most of them.
        reason: why not.
    """

    name: str
    version: str
    pictures: int
    licence: str
    reason: str


_COPYLEFT = "weights trained on it might have to be under the same licence, which is not that of this package"

_OTHER_PICTURES = (
    "the pictures are not those that its copyright file credits: it names a shark, the file shows a reef fish"
)

REFUSED = (
    Refused("lomiri-wallpapers-20.04", "20.04.0-2", 4, "CC-BY-SA-3.0", _COPYLEFT),
    Refused("mate-backgrounds", "1.26.0-1", 30, "GPL-2+, CC-BY-SA-4.0", _COPYLEFT),
    Refused("plasma-workspace-wallpapers", "4:5.27.5-2", 40, "GPL-2+", _COPYLEFT),
    Refused("tuxpaint-stamps-default", "2022.06.04-1", 549, "GPL-2", _COPYLEFT),
    Refused("palapeli-data", "4:22.12.3-1", 10, "GPL-2+", _COPYLEFT),
    Refused("jigzo-data", "0.6.1-7.1", 15, "GPL-2+, CC-BY-NC-SA-1.0", _COPYLEFT),
    Refused(
        "gcompris-qt-data",
        "3.1-2",
        46,
        "CC-BY, CC0, public-domain",
        _OTHER_PICTURES,
    ),
    Refused("supertuxkart-data", "1.4+dfsg-2", 45, "CC0, CC-BY", "45 usable textures in a download of 628 MB"),
    Refused("opencv-doc", "4.6.0", 60, "mixed", "the encoder is judged on its pictures"),
)
"""Packages that are not fetched."""

WHEELS = {"scikit-image": ("0.26.0", "skimage/data"), "scikit-learn": ("1.9.1", "sklearn/datasets/images")}
"""Packages of PyPI: the version that is fetched, and the folder in it that holds pictures."""

UNKNOWN = "not stated"


@dataclass(frozen=True)
class Said:
    """What a package's own words say of one picture.

    Attributes:
        author: who made it.
        licence: as in Debian's short names.
        remark: from where and in what words.
    """

    author: str
    licence: str
    remark: str


_FETCHERS = "docstring in skimage/data/_fetchers.py"

WHEEL_TERMS: dict[tuple[str, str], Said] = {
    ("scikit-image", "astronaut.png"): Said("NASA", "public-domain", f"{_FETCHERS}: released into the public domain"),
    ("scikit-image", "brick.png"): Said("CC0Textures", "CC0-1.0", _FETCHERS),
    ("scikit-image", "camera.png"): Said("Lav Varshney", "CC0-1.0", _FETCHERS),
    ("scikit-image", "cell.png"): Said("Paul Müller and others", "CC0-1.0", _FETCHERS),
    ("scikit-image", "chelsea.png"): Said("Stefan van der Walt", "CC0-1.0", _FETCHERS),
    ("scikit-image", "clock_motion.png"): Said("Stefan van der Walt", "public-domain", _FETCHERS),
    ("scikit-image", "coffee.png"): Said("Rachel Michetti", "CC0-1.0", _FETCHERS),
    ("scikit-image", "coins.png"): Said("Brooklyn Museum", UNKNOWN, f"{_FETCHERS}: no known copyright restrictions"),
    ("scikit-image", "grass.png"): Said("linolafett", "CC0-1.0", _FETCHERS),
    ("scikit-image", "gravel.png"): Said("CC0Textures", "CC0-1.0", _FETCHERS),
    ("scikit-image", "hubble_deep_field.jpg"): Said("NASA", "public-domain", _FETCHERS),
    ("scikit-image", "ihc.png"): Said("CMMI", UNKNOWN, f"{_FETCHERS}: no known copyright restrictions"),
    ("scikit-image", "microaneurysms.png"): Said("Andreas Maier", "CC0-1.0", _FETCHERS),
    ("scikit-image", "retina.jpg"): Said("Mikael Häggström", "CC0-1.0", _FETCHERS),
    ("scikit-image", "rocket.jpg"): Said("SpaceX", "public-domain", _FETCHERS),
    ("scikit-image", "text.png"): Said("Wikipedia", "public-domain", f"{_FETCHERS}: released into the public domain"),
    ("scikit-learn", "china.jpg"): Said("danielbuechele", "CC-BY-2.0", "images/README.txt"),
    ("scikit-learn", "flower.jpg"): Said(
        "vultilion (the readme also names danielbuechele)", "CC-BY-2.0", "images/README.txt"
    ),
}
"""Of each picture of Python's packages that says something; the others are listed as not stated."""
