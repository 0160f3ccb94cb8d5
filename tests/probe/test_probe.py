"""The probe calls healthy encoders aligned and names every planted fault."""

import json
from fractions import Fraction

import pytest
import torch

from patchatlas.encoders import sift
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import InputError, MisalignedError, ResourceError, ShapeError, UsageError
from patchatlas.probe import probe
from tests.probe import faults
from tests.probe.faults import Faulty, vit

WIDE, SQUARE, VOLUME = (48, 80), (56, 56), (16, 40, 48)
EIGHT = FakeEncoder(patch=(8, 8))
HALF = Fraction(1, 2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def dense_sift():
    return sift.load(device=torch.device("cpu"))


# Healthy encoders


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        (EIGHT, WIDE),
        (vit((16, 16)), (80, 112)),
        (FakeEncoder(patch=(14, 14), registers=0, position_code=True), (70, 42)),
        (FakeEncoder(patch=(4, 8, 8), channels=1), VOLUME),
        (vit(), WIDE),
        (vit(), SQUARE),
        (vit(registers=0, depth=6), WIDE),
        (vit((4, 8, 8), channels=1), VOLUME),
    ],
    ids=["fake", "vit-16", "fake-14", "fake-3d", "vit", "vit-square", "vit-deep", "vit-3d"],
)
def test_healthy_encoders_are_aligned(encoder, size, seed):
    report = probe(encoder, size, generator=seeded(seed))
    assert (report.verdict, report.hit_rate, report.misses) == ("aligned", 1, ())
    assert report.aligned
    zero = (0,) * len(size)
    assert report.displacements == {zero: report.cells}
    assert report.flat_displacements == {0: report.cells}
    assert report.offset == pytest.approx(zero, abs=0.02)
    assert report.slope == pytest.approx((1,) * len(size), abs=0.01)
    assert report.pictures <= 3
    assert report.forwards == report.pictures * (report.cells + 1)


def test_sift_whose_support_is_wider_than_its_patch_is_aligned(dense_sift):
    report = probe(dense_sift, (48, 80))
    assert (report.verdict, report.hit_rate) == ("aligned", 1)
    assert 1 < report.pictures <= 8


@pytest.mark.parametrize(
    "name", ["dinov3_mlp_d128h2", "dinov3_swiglu_d64h2", "dinov2_mlp_reg_g37_d64h2", "dinov2_swiglu_noreg_g37_d64h4"]
)
def test_networks_of_the_golden_files_are_aligned(name, golden_folder):
    heads = int(name[-1])
    encoder = load_encoder(golden_folder / f"{name}.weights.safetensors", device="cpu", dtype="fp32", heads=heads)
    p = encoder.spec.patch[0]
    assert probe(encoder, (5 * p, 7 * p)).verdict == "aligned"


# Planted faults


@pytest.mark.parametrize("size", [WIDE, SQUARE, (64, 32)], ids=str)
def test_registers_read_as_patches(size):
    report = probe(Faulty(vit(), behind=faults.registers_as_patches), size)
    assert (report.verdict, report.shift, report.cyclic, report.hit_rate) == ("shifted", 4, False, 0)
    assert report.flat_displacements[4] == report.cells - 4
    assert "4 tokens too late" in report.explanation
    assert "1 + registers" in report.advice


@pytest.mark.parametrize("encoder", [EIGHT, vit()], ids=["fake", "vit"])
@pytest.mark.parametrize("by", [1, 2, 5, -3, 10, 23, 30])
def test_tokens_rolled_along_the_list(encoder, by):
    report = probe(Faulty(encoder, behind=faults.rolled(by)), WIDE)
    assert (report.verdict, report.shift, report.cyclic, report.agreement) == ("shifted", by, True, 1)


@pytest.mark.parametrize("size", [WIDE, SQUARE], ids=str)
@pytest.mark.parametrize("encoder", [EIGHT, vit()], ids=["fake", "vit"])
def test_tokens_column_by_column(encoder, size):
    report = probe(Faulty(encoder, behind=faults.column_by_column), size)
    assert (report.verdict, report.axes, report.agreement) == ("transposed", (1, 0), 1)


def test_volume_read_along_its_axes_in_reverse():
    report = probe(Faulty(vit((4, 8, 8), channels=1), behind=faults.column_by_column), VOLUME)
    assert (report.verdict, report.axes) == ("transposed", (2, 1, 0))
    assert "follow the columns, rows, planes of the input" in report.explanation


@pytest.mark.parametrize("size", [WIDE, SQUARE], ids=str)
@pytest.mark.parametrize("encoder", [EIGHT, vit()], ids=["fake", "vit"])
def test_input_turned_inside(encoder, size):
    report = probe(Faulty(encoder, before=faults.turned_inside), size, pictures=2)
    assert (report.verdict, report.axes) == ("transposed", (1, 0))
    if size == WIDE:
        assert report.slope == pytest.approx((0.6, 10 / 6), abs=0.15)


@pytest.mark.parametrize(
    ("axes", "words"),
    [((2,), "left-right."), ((1,), "up-down."), ((1, 2), "up-down and left-right.")],
    ids=["columns", "rows", "both"],
)
def test_mirrored(axes, words):
    report = probe(Faulty(vit(), before=lambda x: x.flip([1 + axis for axis in axes])), WIDE)
    assert report.verdict == "mirrored"
    assert report.explanation == f"The tokens are mirrored {words}"


def test_mirrored_and_transposed_is_told_as_both():
    report = probe(Faulty(vit(), before=lambda x: x.rot90(1, (2, 3))), SQUARE)
    assert report.verdict == "transposed"
    assert "mirrored" in report.explanation


def test_mirrored_before_it_is_transposed():
    report = probe(Faulty(vit(), before=lambda x: x.flip(3), behind=faults.column_by_column), WIDE)
    assert (report.verdict, report.axes, report.agreement) == ("transposed", (1, 0), 1)
    assert report.explanation.endswith("follow the columns, rows of the input, and are mirrored left-right.")


def test_mirrored_volume():
    report = probe(Faulty(FakeEncoder(patch=(4, 8, 8), channels=1), before=lambda x: x.flip(2)), VOLUME)
    assert (report.verdict, report.explanation) == ("mirrored", "The tokens are mirrored front-back.")


@pytest.mark.parametrize("encoder", [EIGHT, vit()], ids=["fake", "vit"])
@pytest.mark.parametrize("size", [(64, 96), (64, 64)], ids=str)
def test_centre_crop(encoder, size):
    report = probe(Faulty(encoder, before=faults.centre_crop(Fraction(7, 8))), size, pictures=3)
    assert report.verdict == "cropped"
    assert report.slope == pytest.approx((8 / 7, 8 / 7), abs=0.03)
    low, high = report.seen
    assert low == pytest.approx([side / 16 for side in size], abs=1.2)
    assert high == pytest.approx([side * 15 / 16 for side in size], abs=1.2)


def test_hard_centre_crop_leaves_cells_without_answer():
    report = probe(Faulty(vit(), before=faults.centre_crop(HALF)), (64, 96), pictures=3)
    assert report.verdict == "cropped"
    assert report.seen[0] == pytest.approx((16, 24), abs=2)
    assert report.seen[1] == pytest.approx((48, 72), abs=2)
    # Two rows above and below and three columns to each side are cut off; the first of each may leak through bilinear.
    assert len(report.silent) >= 96 - 6 * 8
    assert {0, 11, 84, 95} <= set(report.silent)
    assert f"No token answers {len(report.silent)} cells" in report.explanation


def test_crop_that_is_not_central():
    report = probe(Faulty(vit(), before=faults.corner_crop(Fraction(3, 4))), (64, 96), pictures=3)
    assert report.verdict == "cropped"
    assert report.seen[0] == pytest.approx((0, 0), abs=2)
    assert report.seen[1] == pytest.approx((48, 72), abs=2)


def test_padded_inside():
    report = probe(Faulty(vit(), before=faults.shrunk(16)), (64, 96), pictures=3)
    assert report.verdict == "padded"
    assert report.slope == pytest.approx((64 / 96, 96 / 128), abs=0.1)


@pytest.mark.parametrize("encoder", [EIGHT, vit()], ids=["fake", "vit"])
@pytest.mark.parametrize(
    ("by", "within"),
    [((4, 4), 0.5), ((-4, 0), 0.5), ((0, 2), 1), ((1, 1), 0.5), ((HALF, HALF), 0.3), ((0, 8), 0.1), ((8, 0), 0.1)],
    ids=str,
)
def test_seen_from_a_point_further_on(encoder, by, within):
    report = probe(Faulty(encoder, before=faults.moved(*by)), (64, 96), pictures=2)
    assert report.verdict == "offset"
    pixels = [-8 * part for part in report.offset]
    assert pixels == pytest.approx([float(step) for step in by], abs=within)


def test_sift_off_by_a_quarter_of_a_patch(dense_sift):
    report = probe(Faulty(dense_sift, before=faults.moved(2, 2)), (64, 96), pictures=3)
    assert report.verdict == "offset"
    assert max(report.offset) < -0.05  # its support is three patches wide and more: small shifts read too small


def test_volume_off_along_z():
    report = probe(Faulty(vit((4, 8, 8), channels=1), before=faults.moved(2, 0, 0)), (24, 32, 40), pictures=3)
    assert report.verdict == "offset"
    assert report.offset == pytest.approx((-0.5, 0, 0), abs=0.05)


def test_shuffled_tokens():
    report = probe(Faulty(vit(), behind=faults.shuffled), WIDE, pictures=2)
    assert (report.verdict, report.slope, report.offset) == ("scrambled", None, None)
    assert report.hit_rate < 0.1


def test_one_token_that_answers_everything_is_no_line():
    def hub(tokens, grid):
        patches = torch.ones_like(tokens.patches)
        patches[:, 2 * grid[1] + 4] = tokens.patches.mean(dim=1)
        return patches

    report = probe(Faulty(EIGHT, behind=hub), WIDE, pictures=1)
    assert (report.verdict, report.slope) == ("scrambled", None)


def test_tokens_that_never_change():
    report = probe(Faulty(EIGHT, before=torch.zeros_like), WIDE, pictures=1)
    assert (report.verdict, report.hit_rate, len(report.silent)) == ("scrambled", 0, 60)
    assert report.displacements == {}


# The bar


def swapped(pairs):
    def behind(tokens, _):
        order = torch.arange(tokens.patches.shape[1])
        for one, other in pairs:
            order[[one, other]] = order[[other, one]]
        return tokens.patches[:, order]

    return behind


def test_one_cell_in_a_hundred_may_miss():
    encoder = Faulty(FakeEncoder(patch=(8, 8)), behind=swapped([(20, 150)]))
    report = probe(encoder, (96, 144))  # 216 cells, two of them swapped
    assert (report.verdict, report.misses, report.pictures) == ("aligned", (20, 150), 8)
    assert "214 of 216 cells" in report.explanation
    report = probe(Faulty(FakeEncoder(patch=(8, 8)), behind=swapped([(20, 150), (3, 77)])), (96, 144))
    assert (report.verdict, len(report.misses)) == ("unclear", 4)


def test_zero_padding_that_bends_the_edges_a_little_is_no_crop():
    def bent(tokens, grid):
        cells = tokens.patches.unflatten(1, grid).clone()  # b gh gw d
        cells[:, 0] += 0.4 * cells[:, 1]
        cells[:, -1] += 0.4 * cells[:, -2]
        return cells.flatten(1, 2)

    assert probe(Faulty(EIGHT, behind=bent), WIDE).verdict == "aligned"


def test_long_tokens_do_not_win_by_their_length():
    def stretched(tokens, _):
        factor = torch.ones(tokens.patches.shape[1])
        factor[[3, 27, 44]] = 50
        return tokens.patches * factor[:, None]

    assert probe(Faulty(vit(), behind=stretched), WIDE).verdict == "aligned"


# How it works


def test_batch_does_not_change_the_report():
    encoder = Faulty(vit(), before=faults.centre_crop(Fraction(7, 8)))
    one, many = (probe(encoder, WIDE, batch=batch, pictures=2, generator=seeded(5)) for batch in (1, 64))
    assert (one.verdict, one.displacements, one.misses) == (many.verdict, many.displacements, many.misses)
    assert one.offset == pytest.approx(many.offset, abs=1e-3)


def test_only_pixels_of_one_patch_change():
    seen = []

    def watch(pixels):
        seen.append(pixels.clone())
        return pixels

    probe(Faulty(FakeEncoder(patch=(4, 8)), before=watch), (12, 32), batch=5)
    calm, *batches = seen
    assert [len(batch) for batch in batches] == [5, 5, 2]
    for cell, picture in enumerate(torch.cat(batches)):
        row, column = divmod(cell, 4)
        changed = (picture != calm[0]).any(dim=0)
        inside = torch.zeros(12, 32, dtype=torch.bool)
        inside[4 * row : 4 * row + 4, 8 * column : 8 * column + 8] = True
        assert torch.equal(changed, inside)
        assert 0 <= picture.min() <= picture.max() <= 1


def test_progress_counts_forwards():
    told = []
    probe(EIGHT, (16, 40), batch=4, pictures=3, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 30), (8, 30), (10, 30)]


def test_some_cells_only():
    report = probe(vit(), WIDE, cells=[0, 7, 31, 33, 59])
    assert (report.verdict, report.cells, report.forwards) == ("aligned", 5, 6)
    report = probe(Faulty(vit(), behind=faults.rolled(1)), WIDE, cells=[3, 9, 19, 32, 40, 59], pictures=1)
    assert (report.verdict, report.shift) == ("shifted", 1)


def test_json_holds_everything():
    report = probe(Faulty(vit(), before=faults.centre_crop(Fraction(7, 8))), (64, 96), pictures=1)
    stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert stored["verdict"] == "cropped"
    assert stored["size"] == [64, 96]
    assert sum(entry["cells"] for entry in stored["displacements"]) == 96 - len(report.silent)
    assert stored["displacements"][0]["cells"] == max(report.displacements.values())
    assert stored["seen"] == [list(corner) for corner in report.seen]


def test_refuses():
    with pytest.raises(ShapeError, match="side 100"):
        probe(EIGHT, (96, 100))
    with pytest.raises(ShapeError, match="single patch"):
        probe(EIGHT, (8, 8))
    with pytest.raises(ShapeError, match="different numbers of 0 to 59"):
        probe(EIGHT, WIDE, cells=[1, 60])
    with pytest.raises(UsageError, match="batch 0"):
        probe(EIGHT, WIDE, batch=0)


def test_another_number_of_tokens_is_named():
    everything = Faulty(vit(), behind=lambda tokens, _: torch.cat([tokens.registers, tokens.patches], dim=1))
    with pytest.raises(MisalignedError, match=r"64 patch tokens.*\(6, 10\) = 60; 4 too many"):
        probe(everything, WIDE)


def test_tokens_that_are_not_finite():
    with pytest.raises(InputError, match="not finite"):
        probe(Faulty(EIGHT, behind=lambda tokens, _: tokens.patches / 0), WIDE)


def test_out_of_memory_says_what_to_do():
    def hungry(tokens, _):
        if len(tokens.patches) > 1:
            raise torch.OutOfMemoryError("no room")
        return tokens.patches

    with pytest.raises(ResourceError, match=r"on 8 inputs of .*; use a smaller batch"):
        probe(Faulty(EIGHT, behind=hungry), WIDE)
