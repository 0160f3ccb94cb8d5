"""Overlap of boxes, against numbers worked by hand."""

import torch

from patchatlas.reid.overlap import areas, intersections, iou

BOXES = torch.tensor([[0, 0, 4, 2], [2, 1, 6, 3], [9, 9, 10, 11], [4, 0, 5, 2]], dtype=torch.float64)


def test_areas_and_intersections() -> None:
    assert areas(BOXES).tolist() == [8, 8, 2, 2]
    shared = [[8, 2, 0, 0], [2, 8, 0, 1], [0, 0, 2, 0], [0, 1, 0, 2]]  # ends are excluded: boxes 0 and 3 only meet
    assert intersections(BOXES, BOXES).tolist() == shared


def test_iou_is_shared_over_covered() -> None:
    table = iou(BOXES[:1], BOXES)
    torch.testing.assert_close(table, torch.tensor([[1, 2 / 14, 0, 0]], dtype=torch.float64))


def test_empty_boxes_overlap_nothing() -> None:
    nothing = torch.zeros(1, 4, dtype=torch.float64)
    assert iou(nothing, nothing).item() == 0
    assert iou(nothing[:0], BOXES).shape == (0, 4)
