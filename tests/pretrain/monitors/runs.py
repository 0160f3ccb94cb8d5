"""Runs as a monitor sees them, made from random numbers: healthy ones, and ones into which a collapse is planted.

Sixteen classes of crops with tokens of length 32, 48 prototypes, 2 globals of 8 samples a step. Targets go through the
real Sinkhorn and all numbers through the real metrics, so what is judged is what a trainer would hand in.
"""

import math

import torch

from patchatlas.pretrain.losses.koleo import koleo_loss
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.monitors.metrics import crop_numbers, divergence, row_entropy
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.monitors.verdict import Verdict

V, B, N, D, K, CLASSES = 2, 8, 8, 32, 48, 16
WAKING = 50
PLANTS = ("uniform", "mode", "dimensional", "complete", "nan", "koleo", "air", "below_ratio")

CONFIG = MonitorConfig(patience=60, spectra_every=20, window_rows=480, queue_tokens=256, tokens_a_step=64)
"""As the defaults, at a tenth of their lengths."""


def run(
    steps: int,
    *,
    seed: int = 0,
    plant: str | None = None,
    at: int = 0,
    monitor: Monitor | None = None,
    first: int = 0,
) -> list[Verdict]:
    """The verdicts of all steps; the collapse named `plant` sets in at step `at`."""
    monitor = monitor or Monitor(CONFIG, seed=seed)
    fixed = torch.Generator().manual_seed(1000 + seed)
    classes = torch.randn(CLASSES, D, generator=fixed)
    head = torch.randn(D, K, generator=fixed) / math.sqrt(D)
    verdicts = []
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(10_000 * seed + step)
        planted = plant if step >= at else None
        which = torch.randint(CLASSES, (B,), generator=generator)
        cls = classes[which] + 0.5 * torch.randn(V, B, D, generator=generator)
        ratio = 0.4 + 0.6 * torch.rand(V, B, generator=generator)
        share = (torch.rand(V, B, N, generator=generator) < ratio[..., None]).float()
        tokens = torch.randn(V, B, N, D, generator=generator)
        tokens = tokens + 0.8 * classes[which][:, None] * share[..., None]
        awake = min(1.0, (step + 1) / WAKING)  # targets begin as good as uniform, as those of a real run do
        logits = awake * 0.5 * torch.nn.functional.normalize(cls, dim=-1) @ head
        if planted == "dimensional":
            tokens = tokens[..., :2] @ torch.randn(2, D, generator=torch.Generator().manual_seed(5))
        if planted == "complete":
            tokens, cls = tokens * 0.01 + classes[0], cls * 0.01 + classes[0]
        if planted == "air":
            tokens, cls = tokens + 3 * (2 * share[..., None] - 1), cls + 6 * (ratio[..., None] - 0.7)
        if planted == "uniform":
            logits = logits[:1, :1] + 1e-4 * torch.randn(V, B, K, generator=generator)
        if planted == "mode":
            logits[..., :2] += 1.0
        monitor.see_rows(logits.flatten(0, 1), temperature=0.05)
        monitor.see_features(step, cls, tokens, token_foreground=share, ratio=ratio)
        targets = sinkhorn(logits.flatten(0, 1), temperature=0.05)
        student = logits.flatten(0, 1) + 0.05 * torch.randn(V * B, K, generator=generator)
        numbers = divergence(student, targets, student_temp=0.1)
        numbers |= {"row_entropy": row_entropy(targets), "koleo": float(koleo_loss(cls[0])), "loss/ibot": 3.0}
        flags = ["below_min"] + [None] * 15 if planted == "below_ratio" else [None] * 16
        numbers |= crop_numbers({"globals": ratio.flatten().tolist()}, flags=flags)
        if planted == "nan":
            numbers["loss/ibot"] = math.nan
        if planted == "koleo":
            numbers["koleo"] = math.inf
        verdicts.append(monitor.update(step, numbers, prototypes=head.T))
    return verdicts
