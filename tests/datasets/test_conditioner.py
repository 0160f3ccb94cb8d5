"""Text, CLS and patches as one sequence."""

from typing import Any

import pytest
import torch
from torch import Tensor

from patchatlas.datasets.batch import Packed, Padded
from patchatlas.datasets.conditioner import DROPOUT, Conditioning, Mode, PatchConditioner
from patchatlas.errors import ShapeError, UsageError

WIDTH, TEXT_DIM, DIM = 12, 5, 8
GRIDS = [(2, 3), (3, 2), (2, 2), (3, 3)]
TEXT_LENGTHS = [4, 2, 0, 3]
MODES = [Mode.BOTH, Mode.TEXT, Mode.IMAGE, Mode.NONE]


def padded(seed: int = 0) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    grids = torch.tensor(GRIDS)
    lengths = grids.prod(dim=1)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    values = torch.randn(len(GRIDS), int(lengths.max()), DIM, generator=generator) * mask[..., None]
    return Padded(values, mask, grids)


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        "text": torch.randn(4, 4, TEXT_DIM, generator=generator),
        "text_mask": torch.arange(4) < torch.tensor(TEXT_LENGTHS)[:, None],
        "cls": torch.randn(4, DIM, generator=generator),
    }


def conditioner(**options: Any) -> PatchConditioner:
    torch.manual_seed(3)
    return PatchConditioner(WIDTH, text_dim=TEXT_DIM, patch_dim=DIM, **options)


def rows(sequence: Conditioning, sample: int) -> Tensor:
    return sequence.tokens[sample][sequence.mask[sample]]


def test_one_sequence_of_text_cls_and_patches() -> None:
    net, patches, given = conditioner(), padded(), inputs()
    sequence = net(patches, **given)
    assert sequence.tokens.shape == (4, 4 + 1 + 9, WIDTH)
    # Sample 2 has no text at all: one null token stands for it.
    assert sequence.mask.sum(dim=1).tolist() == [4 + 1 + 6, 2 + 1 + 6, 1 + 1 + 4, 3 + 1 + 9]
    assert sequence.tokens[~sequence.mask].abs().sum() == 0
    assert net.cls is not None
    assert net.cls_type is not None
    own = rows(sequence, 1)
    torch.testing.assert_close(own[:2], net.text(given["text"][1, :2]) + net.text_type)
    torch.testing.assert_close(own[2], net.cls(given["cls"][1]) + net.cls_type)
    torch.testing.assert_close(rows(sequence, 2)[0], net.null_text)


def test_modes_by_hand() -> None:
    net, patches, given = conditioner(), padded(), inputs()
    full = net(patches, **given)
    sequence = net(patches, modes=torch.tensor(MODES), **given)
    assert sequence.mask.sum(dim=1).tolist() == [4 + 1 + 6, 2 + 1 + 1, 1 + 1 + 4, 1 + 1 + 1]
    torch.testing.assert_close(rows(sequence, 0), rows(full, 0))
    assert net.null_cls is not None
    torch.testing.assert_close(rows(sequence, 1)[:2], rows(full, 1)[:2])
    torch.testing.assert_close(rows(sequence, 1)[2:], torch.stack([net.null_cls, net.null_patch]))
    torch.testing.assert_close(rows(sequence, 2)[0], net.null_text)
    torch.testing.assert_close(rows(sequence, 2)[1:], rows(full, 2)[1:])
    torch.testing.assert_close(rows(sequence, 3), torch.stack([net.null_text, net.null_cls, net.null_patch]))


def test_what_is_dropped_does_not_show() -> None:
    """Neither the values nor the sizes of a dropped picture or text reach the sequence."""
    net = conditioner()
    modes = torch.tensor([Mode.NONE] * 4)
    sequence = net(padded(0), modes=modes, **inputs(0))
    other = net(padded(9), modes=modes, **inputs(9))
    assert sequence.mask.sum(dim=1).tolist() == [3] * 4
    torch.testing.assert_close(sequence.packed().tokens, other.packed().tokens, rtol=0, atol=0)


def test_padded_and_packed_patches_give_the_same_sequence() -> None:
    net, patches, given = conditioner(), padded(), inputs()
    modes = torch.tensor(MODES)
    one, two = net(patches, modes=modes, **given), net(patches.packed(), modes=modes, **given)
    assert isinstance(patches.packed(), Packed)
    torch.testing.assert_close(one.tokens, two.tokens)
    assert torch.equal(one.mask, two.mask)
    packed = one.packed()
    assert packed.cu_seqlens.tolist() == [0, 11, 15, 21, 24]
    assert packed.cu_seqlens.dtype == torch.int32
    assert packed.max_seqlen == 11
    torch.testing.assert_close(packed.tokens[11:15], rows(one, 1))


def test_padding_never_changes_a_sample() -> None:
    """A sample alone and among longer ones has the same tokens."""
    net, patches, given = conditioner(), padded(), inputs()
    together = net(patches, **given)
    n = 4
    alone = net(
        Padded(patches.values[2:3, :n], patches.mask[2:3, :n], patches.grids[2:3]),
        **{name: value[2:3] for name, value in given.items()},
    )
    torch.testing.assert_close(rows(alone, 0), rows(together, 2))


def test_equal_patches_in_different_places_are_told_apart() -> None:
    net = conditioner(has_cls=False)
    patches = padded()
    same = Padded(torch.ones_like(patches.values), patches.mask, patches.grids)
    sequence = net(same)
    own = rows(sequence, 3)[1:]  # nine patches on 3 x 3
    distances = torch.cdist(own, own) + torch.eye(9)
    assert distances.min() > 1e-3
    # The middle of 3 x 3 and of nothing else is at the centre of its picture; a corner is where it is by its grid.
    moved = Padded(same.values[3:], same.mask[3:], torch.tensor([(1, 9)]))
    assert not torch.allclose(rows(net(moved), 0)[1:], own)


def test_the_share_of_each_mode() -> None:
    assert DROPOUT == {Mode.NONE: 0.10, Mode.TEXT: 0.30, Mode.IMAGE: 0.05, Mode.BOTH: 0.55}
    net = conditioner()
    count = 40_000
    drawn = net.draw_modes(count, torch.Generator().manual_seed(0))
    again = net.draw_modes(count, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    for mode, share in DROPOUT.items():
        sigma = (share * (1 - share) / count) ** 0.5
        assert abs(float((drawn == mode).double().mean()) - share) < 4 * sigma
    assert not torch.equal(drawn, net.draw_modes(count, torch.Generator().manual_seed(1)))
    half = net.to(torch.bfloat16).draw_modes(count, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, half)


def test_a_certain_mode_is_always_drawn() -> None:
    for mode in Mode:
        drawn = conditioner(dropout={mode: 1.0}).draw_modes(200, torch.Generator().manual_seed(0))
        assert set(drawn.tolist()) == {int(mode)}


def test_gradients_reach_everything_that_is_learnt() -> None:
    net = conditioner()
    sequence = net(padded(), modes=torch.tensor(MODES), **inputs())
    sequence.tokens.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    bare = conditioner()
    bare(padded(), cls=inputs()["cls"]).tokens.sum().backward()
    assert bare.null_text.grad is not None
    assert bare.text.weight.grad is None


def test_without_text_or_cls() -> None:
    net = conditioner(has_cls=False)
    sequence = net(padded())
    assert sequence.mask.sum(dim=1).tolist() == [1 + 6, 1 + 6, 1 + 4, 1 + 9]
    empty = net(padded(), text=torch.zeros(4, 0, TEXT_DIM))
    torch.testing.assert_close(sequence.tokens, empty.tokens)


def test_refusals() -> None:
    given = inputs()
    with pytest.raises(ShapeError, match="without a CLS"):
        conditioner(has_cls=False)(padded(), cls=given["cls"])
    with pytest.raises(ShapeError, match="with a CLS"):
        conditioner()(padded())
    with pytest.raises(ShapeError, match="text is of 3 samples, the patches of 4"):
        conditioner()(padded(), text=given["text"][:3], cls=given["cls"][:3])
    with pytest.raises(UsageError, match="add up to 1"):
        conditioner(dropout={Mode.BOTH: 0.5})
    with pytest.raises(UsageError, match="must not be negative"):
        conditioner(dropout={Mode.BOTH: 1.5, Mode.NONE: -0.5})


@pytest.mark.parametrize("what", ["text", "patches"])
def test_nothing_of_the_padding_reaches_tokens_or_gradients(what: str) -> None:
    """A text encoder may leave NaN where its mask is false; NaN times 0 is NaN."""
    net, patches, given = conditioner(), padded(), inputs()
    expected = net(patches, **given)
    if what == "text":
        given["text"][~given["text_mask"]] = torch.nan
    else:
        patches.values[~patches.mask] = torch.nan
    sequence = net(patches, **given)
    torch.testing.assert_close(sequence.tokens, expected.tokens, rtol=0, atol=0)
    sequence.tokens.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
