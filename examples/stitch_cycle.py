"""A whole cycle with known truth: simulate a scan, teach a small network to see object tiles in diffraction, stitch
what it sees, diagnose the stitch, and compare it with the truth. A few minutes on one CPU core, no download.

    python examples/stitch_cycle.py cycle-output

The network gets a first guess rather than raw diffraction: the measured amplitudes with the phases that the probe alone
would give, brought back to the object. That guess holds the object and a blurred twin; the network takes the twin away.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchatlas.canvas.windows import probe_intensity
from patchatlas.stitch.diagnosis.diagnose import diagnose
from patchatlas.stitch.diagnosis.picture import Picture
from patchatlas.stitch.run import stitch
from patchatlas.stitch.simulate import Simulation, make_object, make_probe, save_simulation, scan_path, simulate

TILE, OBJECT = 32, 200


class Net(nn.Module):
    """Two levels down and up again; first guess in, object tile out, both as real and imaginary part."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def block(wide_in: int, wide: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(wide_in, wide, 3, stride, 1), nn.GroupNorm(4, wide), nn.GELU())

        self.fine = block(2, width)
        self.middle = nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width))
        self.coarse = nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 4 * width))
        self.up = nn.Upsample(scale_factor=2)
        self.joined = block(6 * width, 2 * width)
        self.out = nn.Sequential(block(3 * width, width), nn.Conv2d(width, 2, 3, 1, 1))

    def forward(self, guess: Tensor) -> Tensor:
        fine = self.fine(guess)
        middle = self.middle(fine)
        middle = self.joined(torch.cat([self.up(self.coarse(middle)), middle], dim=1))
        out: Tensor = self.out(torch.cat([self.up(middle), fine], dim=1))
        return out


def channels(values: Tensor) -> Tensor:
    """Complex (n, h, w) as real (n, 2, h, w)."""
    return torch.view_as_real(values).permute(0, 3, 1, 2).contiguous()


def first_guess(diffraction: Tensor, probe: Tensor, mean: Tensor) -> Tensor:
    """What the object is beyond its mean if the far field had the phases of the probe alone; (n, h, w) complex."""
    phases = torch.fft.fft2(probe * mean, norm="ortho").angle()
    amplitudes = torch.fft.ifftshift(diffraction, dim=(1, 2))
    wave = torch.fft.ifft2(torch.polar(amplitudes, phases.expand_as(amplitudes)), norm="ortho") - probe * mean
    light = probe.abs().square()
    guess: Tensor = wave * probe.conj() / (light + 0.05 * light.max())  # 0.05: where it is dark, nothing is known
    return guess


def train(scan: Simulation, mean: Tensor, *, epochs: int, generator: torch.Generator) -> Net:
    """Fit by AdamW with a falling rate; errors count as much as light fell on them."""
    net = Net()
    light = scan.probe.abs() / scan.probe.abs().max()
    guesses, truths = channels(first_guess(scan.diffraction, scan.probe, mean)), channels(scan.tiles - mean)
    optimizer = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * len(guesses[::50]))
    for epoch in range(epochs):
        for rows in torch.randperm(len(guesses), generator=generator).split(50):
            loss = (light * (net(guesses[rows]) - truths[rows]).square()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.5f}", flush=True)
    return net


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of all values."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def main(output: Path, *, positions: int = 1000, test_positions: int = 512, epochs: int = 40) -> dict[str, Any]:
    """Run the cycle; writes the test scan, its predicted tiles and a summary, and returns the summary."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    side = (OBJECT, OBJECT)
    image, probe = make_object(side, rng), make_probe(TILE)
    paths = ("fermat", positions), ("random", test_positions)
    corners = [scan_path(kind, n, object_hw=side, side=TILE, generator=rng) for kind, n in paths]
    known, asked = (simulate(image, probe, at, generator=rng) for at in corners)
    mean = known.tiles.mean()
    net = train(known, mean, epochs=epochs, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = net(channels(first_guess(asked.diffraction, probe, mean))).permute(0, 2, 3, 1).contiguous()
    tiles = (torch.view_as_complex(seen) + mean)[:, None]

    made = stitch(tiles, asked.positions, window=probe_intensity(probe))
    picture = Picture(made.values, made.coverage, made.origin_xy, window=made.window)
    report = diagnose(tiles, asked.positions, picture)
    (x, y), (h, w) = (int(v) for v in made.origin_xy), made.coverage.shape
    truth, covered = image[y : y + h, x : x + w], made.coverage > 0
    summary = {
        "verdict": report.verdict,
        "sentence": report.sentence,
        "amplitude_correlation": correlation(made.values[0].abs()[covered], truth.abs()[covered]),
        "phase_correlation": correlation(made.values[0].angle()[covered], truth.angle()[covered]),
    }
    output.mkdir(exist_ok=True)
    save_simulation(output / "test.npz", asked, metadata={"example": "stitch_cycle"})
    np.save(output / "predicted.npy", tiles.numpy())
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))
    print(f"now: patchatlas stitch run {output}/test.npz --tiles {output}/predicted.npy --window probe --output ...")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Simulate, learn, stitch, diagnose, compare.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--positions", type=int, default=1000)
    parser.add_argument("--test-positions", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=40)
    main(**vars(parser.parse_args()))
