"""Groups of parameters, what is cut, and how the teacher follows."""

import pytest
import torch

from patchatlas.encoders.vit import ViTConfig
from patchatlas.pretrain.model import make_teacher
from patchatlas.pretrain.optimiser import clip, factors, follow, make_optimiser, set_rates
from patchatlas.pretrain.schedules import Schedules
from patchatlas.pretrain.settings import HeadConfig, OptimConfig
from patchatlas.pretrain.student import Network, Pass, begin

HEAD = HeadConfig(prototypes=8, hidden=12, bottleneck=6)


def tiny() -> Network:
    vit = ViTConfig(family="vit3d", patch=(4, 4, 4), channels=1, dim=24, depth=2, heads=2, ffn_hidden=48, registers=1)
    return begin(vit, dino=HEAD, ibot=HEAD, seed=0)


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [
        ("vit.patch_embed.weight", 0.5**3 * 0.2, 1.0),
        ("vit.patch_embed.bias", 0.5**3 * 0.2, 0.0),
        ("vit.cls_token", 0.5**3, 1.0),
        ("mask_token", 0.5**3, 1.0),
        ("vit.blocks.0.attention.qkv.weight", 0.5**2, 1.0),
        ("vit.blocks.1.norm1.weight", 0.5, 0.0),
        ("vit.blocks.1.scale2", 0.5, 0.0),
        ("vit.norm.weight", 1.0, 0.0),
        ("dino_head.layers.0.weight", 1.0, 1.0),
        ("dino_head.layers.0.bias", 1.0, 0.0),
    ],
)
def test_factors_of_a_parameter(name, lr, decay):
    assert factors(name, OptimConfig(layer_decay=0.5, patch_embed_lr=0.2), depth=2) == (pytest.approx(lr), decay, False)


def test_prototypes_stand_still_at_first():
    network = tiny()
    config = OptimConfig(freeze_last=2, warmup=0)
    optimiser = make_optimiser(network, config, depth=2)
    schedules = Schedules.of(config, steps=10, samples=4)
    held = {id(parameter) for group in optimiser.param_groups if group["last"] for parameter in group["params"]}
    assert held == {id(network.dino_head.prototypes), id(network.ibot_head.prototypes)}
    rates = []
    for step in (1, 2):
        set_rates(optimiser, schedules, step)
        rates.append([group["lr"] for group in optimiser.param_groups if group["last"]])
    assert rates[0] == [0]
    assert rates[1] > [0]


def test_every_parameter_that_learns_is_in_one_group():
    network = tiny()
    optimiser = make_optimiser(network, OptimConfig(), depth=2)
    grouped = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters() if parameter.requires_grad)


def test_each_part_is_cut_by_itself():
    network = tiny()
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    for parameter in network.dino_head.parameters():
        parameter.grad *= 1e-3
    before = {name: parameter.grad.clone() for name, parameter in network.dino_head.named_parameters()}
    norms = clip(network, 1.0)
    assert set(norms) == {"vit", "dino_head", "ibot_head"}
    learning = [p for n, p in network.named_parameters() if n.startswith("vit.") and p.requires_grad]
    cut = [parameter.grad for parameter in [*learning, network.mask_token]]
    assert torch.stack([g.norm() for g in cut]).norm() == pytest.approx(1.0, rel=1e-4)
    assert norms["vit"] == pytest.approx(sum(g.numel() for g in cut) ** 0.5, rel=1e-5)
    for name, parameter in network.dino_head.named_parameters():
        assert torch.equal(parameter.grad, before[name])


def test_the_teacher_follows():
    student = tiny()
    teacher = make_teacher(student)
    with torch.no_grad():
        student.vit.cls_token.fill_(1)
        teacher.vit.cls_token.fill_(0)
    follow(teacher, student, 0.9)
    torch.testing.assert_close(teacher.vit.cls_token.data, torch.full((24,), 0.1))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    seen = teacher(Pass(x=torch.zeros(1, 1, 8, 8, 8)))[0]
    assert not seen.cls.requires_grad
