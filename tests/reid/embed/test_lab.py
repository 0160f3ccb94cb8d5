"""The descriptor without weights: colours by the book, and vectors that stand for what a crop shows."""

import numpy as np
import pytest
import torch

from patchatlas.reid.embed.lab import LabEmbedder, to_lab

# CIE L*a*b* of sRGB primaries under D65, from the definition with more digits (Lindbloom's calculator agrees).
COLOURS = {
    (0, 0, 0): (0, 0, 0),
    (1, 1, 1): (100, 0, 0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (0.5, 0.5, 0.5): (53.39, 0, 0),
}


@pytest.mark.parametrize(("rgb", "lab"), COLOURS.items())
def test_lab_of_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    pixel = torch.tensor(rgb, dtype=torch.float64).reshape(3, 1, 1)
    np.testing.assert_allclose(to_lab(pixel).flatten().numpy(), lab, atol=0.05)


def person(top: tuple[int, int, int], legs: tuple[int, int, int], size: tuple[int, int] = (96, 48)) -> np.ndarray:
    picture = np.zeros((*size, 3), np.uint8)
    picture[: size[0] // 2], picture[size[0] // 2 :] = top, legs
    return picture


def test_vectors_are_of_unit_length_and_do_not_depend_on_the_batch() -> None:
    embedder = LabEmbedder()
    crops = [person((200, 30, 30), (30, 30, 90)), person((20, 160, 60), (240, 240, 240), (61, 17))]
    both, valid = embedder.embed_crops(crops)
    assert valid.tolist() == [True, True]
    assert both.shape == (2, embedder.spec.dim)
    torch.testing.assert_close(torch.linalg.vector_norm(both, dim=1), torch.ones(2))
    assert torch.equal(embedder.embed_crops(crops[1:])[0][0], both[1])


def test_a_bad_crop_is_marked_and_shifts_nobody() -> None:
    """Defects 6 to 8: one empty crop spoilt its batch, zero vectors went unnoticed, rows shifted."""
    embedder = LabEmbedder()
    good = person((200, 30, 30), (30, 30, 90))
    vectors, valid = embedder.embed_crops([good, good[:0], good[:, :1], good])
    assert valid.tolist() == [True, False, False, True]
    assert torch.equal(vectors[0], vectors[3])
    assert bool(vectors[1:3].isnan().all())
    assert embedder.embed_crops([])[0].shape == (0, embedder.spec.dim)


def test_clothes_are_told_apart_and_light_is_not() -> None:
    embedder = LabEmbedder()
    one, turned = person((200, 30, 30), (30, 30, 90)), person((30, 30, 90), (200, 30, 30))
    darker = (one * 0.85).astype(np.uint8)
    small = person((200, 30, 30), (30, 30, 90), (40, 16))
    vectors, _ = embedder.embed_crops([one, darker, small, turned])
    same_light, same_size, other = (float(vectors[0] @ vectors[k]) for k in (1, 2, 3))
    assert same_size > 0.98
    assert same_light > 0.8  # of flat colours, which fall from bin to bin at once
    assert other < 0.5


def test_red_is_not_blue() -> None:
    """Defects 9 and 10: channels swapped between one stage and the next."""
    embedder = LabEmbedder()
    crop = person((200, 30, 30), (30, 30, 90))
    vectors, _ = embedder.embed_crops([crop, np.ascontiguousarray(crop[..., ::-1])])
    assert float(vectors[0] @ vectors[1]) < 0.6


def test_the_stamp_says_what_vectors_depend_on() -> None:
    assert LabEmbedder().stamp == LabEmbedder().stamp
    assert dict(LabEmbedder().stamp.facts)["family"] == "lab"
