"""One contract for every encoder: what stands on them may rely on this and on nothing else.

Each encoder comes with a size that is not square; the ViTs hold the weights of the small reference networks in
tests/golden/dino.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder, build_network
from patchatlas.errors import ShapeError
from patchatlas.spec import EncoderSpec
from tests.encoders import tiny_transformers as tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "dino"


@dataclass(frozen=True)
class Case:
    """A way to get an encoder.

    Attributes:
        load: gives the encoder in `fp32` or `bf16`; the folder is for files that it needs.
        grid: patches along each axis of the pictures that it is tried on.
        dtypes: what it can be asked for.
    """

    load: Callable[[str, Path], Encoder]
    grid: tuple[int, ...] = (2, 5)
    dtypes: tuple[str, ...] = ("fp32", "bf16")


def golden(name: str, heads: int) -> Case:
    path = GOLDEN / f"{name}.weights.safetensors"
    return Case(lambda dtype, _: load_encoder(path, device="cpu", dtype=dtype, heads=heads))


def volumes(dtype: str, _: Path) -> Encoder:
    config = ViTConfig(
        family="vit3d", patch=(2, 4, 4), dim=48, depth=2, heads=2, registers=2, ffn_hidden=64, channels=1
    )
    network = ViT(config)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(value.shape, generator=generator) * (0.2 if value.ndim > 1 else 0.5)
        for key, value in network.state_dict().items()
    }
    spec = EncoderSpec(
        name="tiny 3-D",
        family="vit3d",
        patch=config.patch,
        dim=config.dim,
        registers=config.registers,
        has_cls=True,
        channels=config.channels,
        mean=(0.3,),
        std=(0.2,),
        layer=config.depth - 1,
        depth=config.depth,
        norm="final",
        dtype="bf16" if dtype == "bf16" else "fp32",
        licence="unknown",
        weights_sha256="none",
        source="test",
    )
    arithmetic = torch.bfloat16 if dtype == "bf16" else torch.float32
    cpu = torch.device("cpu")
    return VitEncoder(build_network(state, config, mean=spec.mean, std=spec.std, device=cpu, dtype=arithmetic), spec)


def through_transformers(kind: Callable[[], object]) -> Case:
    return Case(lambda dtype, folder: load_encoder(tiny.saved(kind(), folder), device="cpu", dtype=dtype))


FP32 = ("fp32",)
CASES = {
    "fake": Case(lambda *_: FakeEncoder(), dtypes=FP32),
    "fake-3d": Case(lambda *_: FakeEncoder(patch=(2, 8, 4), registers=0), grid=(2, 3, 4), dtypes=FP32),
    "sift": Case(lambda *_: load_encoder("bundled:sift", device="cpu"), dtypes=FP32),
    "dinov2": golden("dinov2_mlp_noreg_g4_d64h2", 2),
    "dinov2-reg": golden("dinov2_mlp_reg_g37_d64h2", 2),
    "dinov2-swiglu": golden("dinov2_swiglu_reg_g4_d64h2", 2),
    "dinov3": golden("dinov3_mlp_d128h2", 2),
    "dinov3-gated": golden("dinov3_swiglu_d64h2", 2),
    "vit-3d": Case(volumes, grid=(2, 3, 4)),
    "vjepa2": through_transformers(tiny.vjepa2),
    "convnext": through_transformers(tiny.convnext),
}


@pytest.fixture(
    scope="module", params=[(name, dtype) for name, case in CASES.items() for dtype in case.dtypes], ids="-".join
)
def asked(request) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def encoder(asked, tmp_path_factory) -> Encoder:
    name, dtype = asked
    return CASES[name].load(dtype, tmp_path_factory.mktemp(name))


@pytest.fixture
def pictures(asked, encoder) -> torch.Tensor:
    """Three different ones of one size, in 0..1."""
    return noise(encoder, CASES[asked[0]].grid, count=3)


def noise(encoder: Encoder, grid: tuple[int, ...], *, count: int, seed: int = 0) -> torch.Tensor:
    size = [cells * patch for cells, patch in zip(grid, encoder.spec.patch, strict=True)]
    return torch.rand(count, encoder.spec.channels, *size, generator=torch.Generator().manual_seed(seed))


def parts(tokens: Tokens) -> dict[str, torch.Tensor]:
    found = {"patches": tokens.patches, "cls": tokens.cls, "registers": tokens.registers}
    return {name: value for name, value in found.items() if value is not None}


def assert_same(got: Tokens, want: Tokens, *, dtype: str) -> None:
    """Equal but for the order of sums, which may follow the size of a batch."""
    assert parts(got).keys() == parts(want).keys()
    for name, value in parts(got).items():
        if dtype == "fp32":
            torch.testing.assert_close(value, parts(want)[name], atol=2e-5, rtol=1e-5)
        else:
            assert F.cosine_similarity(value.float(), parts(want)[name].float(), dim=-1).min() > 0.9999


def test_shapes_are_those_of_the_spec(encoder, pictures, asked):
    spec, tokens = encoder.spec, encoder(pictures)
    count = torch.tensor(CASES[asked[0]].grid).prod()
    assert tokens.patches.shape == (3, count, spec.dim)
    assert (tokens.cls is None) == (not spec.has_cls)
    assert (tokens.registers is None) == (spec.registers == 0)
    assert tokens.cls is None or tokens.cls.shape == (3, spec.dim)
    assert tokens.registers is None or tokens.registers.shape == (3, spec.registers, spec.dim)


def test_the_spec_is_whole(encoder, asked):
    spec = encoder.spec
    assert spec.ndim == len(spec.patch) in (2, 3)
    assert len(spec.mean) == len(spec.std) == spec.channels
    assert 0 <= spec.layer < spec.depth
    assert spec.dtype == asked[1]
    assert all((spec.name, spec.family, spec.licence, spec.weights_sha256, spec.source))


def test_device_and_dtype_follow_the_loader(encoder, pictures):
    assert encoder.device == torch.device("cpu")
    for value in parts(encoder(pictures)).values():
        assert value.device == encoder.device
        assert value.dtype == torch.float32


def test_the_same_twice(encoder, pictures):
    first, second = parts(encoder(pictures)), parts(encoder(pictures))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_batch_gives_what_its_pictures_give_alone_in_their_order(encoder, pictures, asked):
    together = encoder(pictures)
    for i in range(3):
        alone = encoder(pictures[i : i + 1])
        here = Tokens(**{name: value[i : i + 1] for name, value in parts(together).items()})
        assert_same(here, alone, dtype=asked[1])
    turned = encoder(pictures.flip(0))
    assert_same(Tokens(**{name: value.flip(0) for name, value in parts(turned).items()}), together, dtype=asked[1])


def test_nothing_is_kept_for_gradients_and_the_input_stays(encoder, pictures):
    asking = pictures.clone().requires_grad_()
    assert not any(value.requires_grad for value in parts(encoder(asking)).values())
    assert torch.equal(asking.detach(), pictures)


def test_inputs_need_not_be_contiguous(encoder, pictures, asked):
    strided = pictures.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not strided.is_contiguous()
    assert_same(encoder(strided), encoder(pictures), dtype=asked[1])


@pytest.mark.parametrize("level", [0.0, 1.0, 0.4])
def test_even_pictures_give_finite_tokens(encoder, pictures, level):
    assert all(torch.isfinite(value).all() for value in parts(encoder(torch.full_like(pictures, level))).values())


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (4, 1), (3, 3)])
def test_any_multiples_of_the_patch(encoder, grid):
    grid = (2,) * (encoder.spec.ndim - 2) + grid
    tokens = encoder(noise(encoder, grid, count=1))
    assert tokens.patches.shape[1] == torch.tensor(grid).prod()
    assert all(torch.isfinite(value).all() for value in parts(tokens).values())


def test_patches_are_row_major(encoder, asked):
    """What happens in one patch shows most in the token at row x columns + column."""
    grid = CASES[asked[0]].grid
    base = noise(encoder, grid, count=1)
    still = encoder(base).patches
    for token, cell in enumerate(torch.cartesian_prod(*(torch.arange(n) for n in grid)).tolist()):
        where = tuple(slice(i * p, (i + 1) * p) for i, p in zip(cell, encoder.spec.patch, strict=True))
        changed = base.repeat(8, *[1] * (base.ndim - 1))
        changed[(..., *where)] = noise(encoder, (1,) * len(grid), count=8, seed=token + 1)
        change = (encoder(changed).patches - still).norm(dim=2).mean(dim=0)
        assert change.argmax() == token


def test_sides_that_are_no_multiples_are_refused(encoder, pictures):
    for axis in range(2, pictures.ndim):
        with pytest.raises(ShapeError, match="multiple"):
            encoder(pictures.narrow(axis, 0, pictures.shape[axis] - 1))


def test_other_channels_are_refused(encoder, pictures):
    with pytest.raises(ShapeError, match="channels"):
        encoder(torch.cat([pictures, pictures], dim=1))


def test_a_batch_axis_is_needed(encoder, pictures):
    with pytest.raises(ShapeError):
        encoder(pictures[0])
