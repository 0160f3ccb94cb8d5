"""The recipe of the bundled encoder: settings that can be read and fit together, and the space of its teacher."""

import torch

from patchatlas.pretrain.config import differences
from tools.bundled.teacher import DIM, NAME, _fours, _principal
from tools.bundled.train import RUNS, settings


def test_both_runs_can_be_read_and_differ_only_in_what_is_said() -> None:
    first, second = (settings(name) for name in RUNS)
    assert first.loss == second.loss
    assert first.loss.distil.encoder == NAME
    assert (first.data, second.data) == ("pictures", "pictures")
    assert first.model.shape[0] == DIM
    assert second.model.weights == "first/encoder.safetensors"
    changed = {line.split(" ")[0].rstrip(":") for line in differences(first, second)}
    assert {".".join(name.split(".")[:2]) for name in changed} == {
        "crops.globals", "model.size", "model.layer_scale", "model.weights", "model.rope_rescale", "optim.lr",
        "optim.lr_end", "optim.warmup", "optim.momentum", "optim.momentum_end", "train.steps", "train.batch",
    }  # fmt: skip


def test_the_four_cells_of_a_token_are_its_own() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    tokens = _fours(torch.stack([rows, columns])[None])[0].unflatten(1, (2, 4))  # feature, cell
    for number, (own_rows, own_columns) in enumerate(tokens):
        row, column = divmod(number, 4)
        assert own_rows.tolist() == [2 * row, 2 * row, 2 * row + 1, 2 * row + 1]
        assert own_columns.tolist() == [2 * column, 2 * column + 1, 2 * column, 2 * column + 1]


def test_principal_directions_by_hand() -> None:
    along = torch.tensor([[3.0, -4.0]]) / 5
    rows = torch.tensor([[1.0], [-1.0], [3.0], [-3.0]]) * along + torch.tensor([7.0, 2.0])
    mean, variances, directions = _principal(rows)
    torch.testing.assert_close(mean, torch.tensor([7.0, 2.0]))
    torch.testing.assert_close(variances, torch.tensor([5.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(directions[:, 0], -along[0])  # the largest part is positive
