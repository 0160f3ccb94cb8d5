"""What is known of the released models: sizes, licences, and where each publisher keeps the weights.

Sources: hub entry points and READMEs of facebookresearch/dinov3 at 071435e and dinov2 at b8931f7 (names, sizes, file
names, whose last eight hex digits begin the file's SHA-256, Hugging Face ids), timm 1.0.31 (timm ids), transformers
5.23.0 (V-JEPA 2 ids), model pages of ports that quote the original (V-JEPA 2 sizes and licences), Liu et al. 2022
(ConvNeXt widths and depths), parameter counts from the reference classes on the meta device (those of transformers for
ConvNeXt and V-JEPA 2). `None` stands where no source at hand tells. DINOv3 at facebook/ is gated, the same weights at
timm/ are not (facebookresearch/dinov3 issue 145).
"""

from dataclasses import dataclass
from typing import Literal

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of ImageNet, range 0..1: what all models use but those trained on satellite pictures."""

SAT493M = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
"""Mean and std of the satellite pictures SAT-493M (README of facebookresearch/dinov3)."""

DINOV3_LICENCE = "dinov3-license"
APACHE = "apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One released model.

    Attributes:
        name: what it is called here.
        family: `dinov2`, `dinov3`, `convnext` or `vjepa2`.
        dim: length of a token.
        depth: blocks (all stages together for ConvNeXt).
        heads: attention heads, `None` for ConvNeXt.
        patch: patch size, (h, w) or (frames, h, w); the stride of the last stage for ConvNeXt.
        registers: register tokens.
        parameters: of the reference class; V-JEPA 2's predictor, which its files hold too, is counted.
        meta_file: the publisher's own file name.
        hf_id: id of the transformers files on the Hugging Face hub.
        timm_id: id of the timm files on the Hugging Face hub.
        licence: of the weights.
        gated: whether `hf_id` asks for an account and consent.
        training: what it was trained on.
    """

    name: str
    family: Literal["dinov2", "dinov3", "convnext", "vjepa2"]
    dim: int
    depth: int
    heads: int | None
    patch: tuple[int, ...]
    licence: str
    gated: bool
    registers: int = 0
    parameters: int | None = None
    meta_file: str | None = None
    hf_id: str | None = None
    timm_id: str | None = None
    training: str = "LVD-1689M"

    @property
    def size_bytes(self) -> int | None:
        """About the size of the file: four bytes a parameter, for float32."""
        return None if self.parameters is None else 4 * self.parameters

    @property
    def sha256_start(self) -> str | None:
        """The first eight hex digits of the SHA-256 of `meta_file`, which DINOv3's names end in."""
        if self.meta_file is None or self.family not in ("dinov3", "convnext"):
            return None
        return self.meta_file.removesuffix(".pth").rpartition("-")[2]

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Normalisation that the weights were trained with, range 0..1."""
        return SAT493M if self.training == "SAT-493M" else IMAGENET


def _dinov3(
    short: str,
    sha: str,
    dim: int,
    depth: int,
    heads: int,
    parameters: int,
    timm: str | None,
    *,
    data: str = "lvd1689m",
    on_hub: bool = True,
) -> Entry:
    satellite = data == "sat493m"
    return Entry(
        name=f"dinov3-{short}" + ("-sat493m" if satellite else ""),
        family="dinov3",
        dim=dim,
        depth=depth,
        heads=heads,
        patch=(16, 16),
        registers=4,
        parameters=parameters,
        meta_file=f"dinov3_{short}_pretrain_{data}-{sha}.pth",
        hf_id=f"facebook/dinov3-{short}-pretrain-{data}" if on_hub else None,
        timm_id=f"timm/vit_{timm}_patch16_dinov3.{data}" if timm else None,
        licence=DINOV3_LICENCE,
        gated=True,
        training="SAT-493M" if satellite else "LVD-1689M",
    )


def _convnext(size: str, sha: str, dim: int, depth: int, parameters: int) -> Entry:
    return Entry(
        name=f"dinov3-convnext-{size}",
        family="convnext",
        dim=dim,
        depth=depth,
        heads=None,
        patch=(32, 32),
        parameters=parameters,
        meta_file=f"dinov3_convnext_{size}_pretrain_lvd1689m-{sha}.pth",
        hf_id=f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m",
        # timm has them too, under keys of its own that transformers cannot take
        licence=DINOV3_LICENCE,
        gated=True,
    )


def _dinov2(letter: str, size: str, dim: int, depth: int, heads: int, parameters: int, *, registers: int) -> Entry:
    return Entry(
        name=f"dinov2-vit{letter}14" + ("-reg" if registers else ""),
        family="dinov2",
        dim=dim,
        depth=depth,
        heads=heads,
        patch=(14, 14),
        registers=registers,
        parameters=parameters,
        meta_file=f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth",
        hf_id=f"facebook/dinov2-{'with-registers-' if registers else ''}{size}",
        timm_id=f"timm/vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m",
        licence=APACHE,
        gated=False,
        training="LVD-142M",
    )


def _vjepa2(letter: str, dim: int, depth: int, heads: int, parameters: int, licence: str, *, side: int = 256) -> Entry:
    return Entry(
        name=f"vjepa2-vit{letter}" + ("" if side == 256 else f"-{side}"),
        family="vjepa2",
        dim=dim,
        depth=depth,
        heads=heads,
        patch=(2, 16, 16),
        parameters=parameters,
        hf_id=f"facebook/vjepa2-vit{letter}-fpc64-{side}",
        licence=licence,
        gated=False,
        training="VideoMix22M",
    )


_ALL = (
    _dinov3("vits16", "08c60483", 384, 12, 6, 21_601_152, "small"),
    _dinov3("vits16plus", "4057cbaa", 384, 12, 6, 28_697_472, "small_plus"),
    _dinov3("vitb16", "73cec8be", 768, 12, 12, 85_669_632, "base"),
    _dinov3("vitl16", "8aa4cbdd", 1024, 24, 16, 303_154_176, "large"),
    _dinov3("vitl16plus", "46503df0", 1024, 24, 16, 403_915_776, None, on_hub=False),
    _dinov3("vith16plus", "7c1da9a5", 1280, 32, 20, 840_633_600, "huge_plus"),
    _dinov3("vit7b16", "a955f4ea", 4096, 40, 32, 6_716_043_264, "7b"),
    _dinov3("vitl16", "eadcf0ff", 1024, 24, 16, 303_156_224, "large", data="sat493m"),
    _dinov3("vit7b16", "a6675841", 4096, 40, 32, 6_716_043_264, "7b", data="sat493m"),
    _convnext("tiny", "21b726bb", 768, 18, 27_820_128),
    _convnext("small", "296db49d", 768, 36, 49_454_688),
    _convnext("base", "801f2ba9", 1024, 36, 87_566_464),
    _convnext("large", "61fa432d", 1536, 36, 196_230_336),
    _dinov2("s", "small", 384, 12, 6, 22_056_576, registers=0),
    _dinov2("b", "base", 768, 12, 12, 86_580_480, registers=0),
    _dinov2("l", "large", 1024, 24, 16, 304_368_640, registers=0),
    _dinov2("g", "giant", 1536, 40, 24, 1_136_480_768, registers=0),
    _dinov2("s", "small", 384, 12, 6, 22_058_112, registers=4),
    _dinov2("b", "base", 768, 12, 12, 86_583_552, registers=4),
    _dinov2("l", "large", 1024, 24, 16, 304_372_736, registers=4),
    _dinov2("g", "giant", 1536, 40, 24, 1_136_486_912, registers=4),
    _vjepa2("l", 1024, 24, 16, 325_971_328, "mit"),
    _vjepa2("h", 1280, 32, 16, 653_930_880, APACHE),
    _vjepa2("g", 1408, 40, 22, 1_034_555_264, "see its hub page"),
    _vjepa2("g", 1408, 40, 22, 1_034_555_264, "see its hub page", side=384),
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ALL}
"""Every model known, by name."""

DINO_SIZES = {"small": "dinov3-vits16", "base": "dinov3-vitb16", "large": "dinov3-vitl16"}
"""What `--dino-size` means: 384, 768 and 1024 numbers a token."""


def find(name: str) -> Entry | None:
    """The entry with this name, hub id or publisher's file name."""
    for entry in _ALL:
        if name in (entry.name, entry.hf_id, entry.timm_id, entry.meta_file):
            return entry
    return None


def find_by_sha256(sha256: str) -> Entry | None:
    """The entry whose publisher's file begins with this hash, whatever the file is called now."""
    for entry in _ALL:
        if entry.sha256_start and sha256.startswith(entry.sha256_start):
            return entry
    return None
