"""Several blocks side by side: against concatenation by hand, and what the spec and the stamp say of it."""

import pytest
import torch

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.layers import require_layers, side_by_side, standardise
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder, with_layers
from patchatlas.errors import StampError, UsageError
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

CONFIG = ViTConfig(family="dinov3", patch=(4, 4), dim=32, depth=4, heads=2, registers=3, ffn_hidden=48)


@pytest.fixture
def encoder() -> VitEncoder:
    network = ViT(CONFIG).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.5 if parameter.ndim == 1 else 0.2, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    spec = EncoderSpec(
        name="tiny", family="dinov3", patch=(4, 4), dim=32, registers=3, has_cls=True, channels=3,
        mean=(0.0,) * 3, std=(1.0,) * 3, layer=3, depth=4, norm="final", dtype="fp32", licence="Apache-2.0",
        weights_sha256="tiny", source="drawn",
    )  # fmt: skip
    return VitEncoder(network, spec)


def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(1))


def test_several_blocks_are_what_one_puts_together_by_hand(encoder: VitEncoder) -> None:
    """Blocks 1 and 2 by their own mean and deviation over 15 patches, block 3 by the final norm; each of length 1."""
    one, two, three = encoder.network.forward_blocks(pixels(), [1, 2, 3])
    parts = []
    for tokens in (one, two):
        patches = tokens[:, 4:]
        scaled = torch.empty_like(patches)
        for b in range(2):
            for channel in range(32):
                column = patches[b, :, channel]
                mean = column.sum() / 15
                scaled[b, :, channel] = (column - mean) / ((column - mean).square().sum() / 15).sqrt()
        parts.append(scaled)
    parts.append(encoder.network.norm(three)[:, 4:])
    expected = torch.cat([part / part.square().sum(dim=2, keepdim=True).sqrt() for part in parts], dim=2)
    made = with_layers(encoder, (1, 2, 3))(pixels())
    torch.testing.assert_close(made.patches, expected, atol=1e-5, rtol=1e-5)
    assert made.cls is not None
    assert made.registers is not None
    assert (made.cls.shape, made.registers.shape) == ((2, 96), (2, 3, 96))


def test_a_cosine_is_the_mean_of_the_blocks_cosines(encoder: VitEncoder) -> None:
    both = with_layers(encoder, (0, 3))(pixels()).patches[0]
    alone = [with_layers(encoder, (layer,))(pixels()).patches[0] for layer in (0, 3)]
    unit = torch.nn.functional.normalize(both, dim=1)
    torch.testing.assert_close(unit @ unit.T, sum(a @ a.T for a in alone) / 2)


def test_the_last_block_alone_is_the_encoder_at_unit_length(encoder: VitEncoder) -> None:
    made = with_layers(encoder, (3,))(pixels()).patches
    torch.testing.assert_close(made, torch.nn.functional.normalize(encoder(pixels()).patches, dim=2))


def test_without_the_final_norm_the_last_block_is_standardised_too(encoder: VitEncoder) -> None:
    from dataclasses import replace

    bare = VitEncoder(encoder.network, replace(encoder.spec, norm="none"))
    made = with_layers(bare, (3,))(pixels())
    expected = side_by_side([standardise(encoder.network.forward_blocks(pixels(), [3])[0], prefix=4)])
    torch.testing.assert_close(made.patches, expected[:, 4:])


def test_inputs_of_a_batch_are_standardised_each_by_itself(encoder: VitEncoder) -> None:
    layered = with_layers(encoder, (1,))
    together = layered(pixels()).patches
    torch.testing.assert_close(together[1:], layered(pixels()[1:]).patches, atol=1e-5, rtol=1e-5)


def test_spec_and_stamp_tell(encoder: VitEncoder) -> None:
    layered = with_layers(encoder, (0, 2))
    assert (layered.spec.layers, layered.spec.layer, layered.spec.dim) == ((0, 2), 2, 64)
    assert layered.network is encoder.network
    assert dict(Stamp.of(layered.spec).facts)["layers"] == (0, 2)
    assert "layers" not in dict(Stamp.of(encoder.spec).facts)
    with pytest.raises(StampError, match="layers"):
        Stamp.of(layered.spec).require(Stamp.of(with_layers(encoder, (1, 2)).spec))
    assert with_layers(layered, (0,)).spec.dim == 32


def test_an_even_channel_is_zero() -> None:
    tokens = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(0))
    tokens[:, 2:, 1] = 0.7
    made = standardise(tokens, prefix=2)
    assert torch.equal(made[..., 1], torch.zeros(1, 6))
    torch.testing.assert_close(made[0, 2:, 0].std(correction=0), torch.tensor(1.0))


@pytest.mark.parametrize("layers", [(), (4,), (-1,), (2, 2), (3, 1)])
def test_blocks_that_cannot_stand_side_by_side_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="blocks 0 to 3"):
        require_layers(layers, 4)


def test_only_vits_have_blocks() -> None:
    with pytest.raises(UsageError, match="fake is none"):
        with_layers(FakeEncoder(), (1,))
