"""What the losses and monitors cost, and what the numbers in the manual about them are.

    python -m benchmarks.pretrain.losses

One thread. Prints a table in Markdown: the Gram term against the two matrices that it stands for; Sinkhorn against the
plain formula in float64, with the maximum of each row taken off, and with air among the rows; the time of a look at
features, and of a step's numbers.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from patchatlas.pretrain.losses.gram import gram_loss
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.monitors.metrics import divergence, duplicate_share, row_entropy
from patchatlas.pretrain.monitors.monitor import Monitor


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rows = [*_gram(), *_sinkhorn(), *_monitor()]  # Gram first: its memory is read from the highest so far
    print("| what | value |\n| --- | --- |")
    for what, value in rows:
        print(f"| {what} | {value} |")


def _sinkhorn() -> list[tuple[str, str]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(256, 1024, generator=generator) * 0.3
    logits += 0.5 * torch.randn(256, 1, generator=generator)
    want = _plain(logits.double().numpy())
    off = float(np.abs(sinkhorn(logits, temperature=0.07).numpy() - want).max())
    shifted = float(np.abs(_plain((logits - logits.amax(1, keepdim=True)).double().numpy()) - want).max())
    body = torch.randn(300, 64, generator=generator) * 0.2
    air = (torch.randn(1, 64, generator=generator) * 0.2).expand(700, 64)
    targets = sinkhorn(torch.cat([body, air]), temperature=0.07)
    taken = float((targets[300:].sum(0) > targets[:300].sum(0)).double().mean())
    large = torch.randn(512, 16384, generator=generator) * 0.2
    return [
        ("Sinkhorn, 256 rows x 1024 prototypes: largest error in float32 against float64", f"{off:.1e}"),
        ("the same with the maximum of each row taken off first: largest difference", f"{shifted:.2f}"),
        ("prototypes that are mostly air, 70 % identical air rows among 1000, 64 prototypes", f"{taken:.0%}"),
        ("time, 512 rows x 16,384 prototypes, 3 rounds", _time(lambda: sinkhorn(large, temperature=0.07))),
    ]


def _plain(logits: np.ndarray) -> np.ndarray:
    q = np.exp(logits / 0.07)
    for _ in range(3):
        q /= q.sum(0, keepdims=True)
        q /= q.sum(1, keepdims=True)
    return q


def _gram() -> list[tuple[str, str]]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 13_824, 384, generator=generator) for _ in range(2))

    def matrices(n: int) -> float:
        x, y = (F.normalize(tokens[0, :n], dim=-1) for tokens in (student, teacher))
        return float((x @ x.T - y @ y.T).square().mean())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = _time(lambda: gram_loss(student, teacher))
    held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    apart = abs(float(gram_loss(student[:, :4096], teacher[:, :4096])) / matrices(4096) - 1)
    return [
        ("Gram, 13,824 tokens (192^3 at patch 8) of length 384: time", ours),
        ("memory that it adds at its peak", f"{held:.0f} MB"),
        ("the two matrices for 4096 tokens: time", _time(lambda: matrices(4096))),
        ("relative difference of both for 4096 tokens", f"{apart:.1e}"),
    ]


def _monitor() -> list[tuple[str, str]]:
    generator = torch.Generator().manual_seed(0)
    monitor = Monitor(MonitorConfig())
    for step in range(260):
        tokens = torch.randn(2, 16, 64, 384, generator=generator)
        share = (torch.rand(2, 16, 64, generator=generator) < 0.6).float()
        monitor.see_features(step, tokens[:, :, 0], tokens, token_foreground=share, ratio=share.mean(-1))
    targets = torch.softmax(torch.randn(256, 4096, generator=generator), -1)
    prototypes = torch.randn(4096, 256, generator=generator)

    def numbers() -> None:
        row_entropy(targets)
        divergence(targets[:16], targets[:16], student_temp=0.1)
        monitor.see_features(0, tokens[:, :, 0], tokens, token_foreground=share, ratio=share.mean(-1))

    return [
        ("a step's numbers, 256 rows x 4096 prototypes, 2048 patch tokens of length 384", _time(numbers)),
        ("a look, 4096 tokens of each kind of length 384", _time(monitor.look)),
        ("doubles among 4096 prototypes of length 256", _time(lambda: duplicate_share(prototypes))),
    ]


def _time(work: Callable[[], object]) -> str:
    """The least of three."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return f"{min(seconds):.2f} s" if min(seconds) >= 1 else f"{1000 * min(seconds):.0f} ms"


if __name__ == "__main__":
    main()
