"""Does it matter where patches are? Trains a small diffusion transformer on stored patches, aligned and misaligned.

    python examples/dit_conditioning.py dit-output

Cuts crops from photographs, builds features of them, packs these into shards and loads them back, as for a real data
set; then teaches the same network, from the same seeds, to paint the crops (flow matching, 2 x 2 pixels to a patch)
given text, CLS and patches from `PatchConditioner`. What differs between the runs is only where the patches are said to
be. Some minutes on one CPU core; the encoder has random weights, so nothing is downloaded.

Axes: b pictures, n patches of a picture, d features, w width of the network, s tokens of the conditioning.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchatlas.datasets.batch import Batch, Padded
from patchatlas.datasets.build.run import build
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.conditioner import Conditioning, PatchConditioner
from patchatlas.datasets.coordinates import grid_coordinates
from patchatlas.datasets.loader import FeatureLoader, Normalisation
from patchatlas.datasets.pack import pack
from patchatlas.datasets.placement import bucket_frame
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.stats import dataset_statistics
from patchatlas.dense import to_pixels
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.errors import PatchAtlasError
from patchatlas.geometry.area import resample_area
from patchatlas.geometry.sampling import resample
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.images import read_image, write_image
from patchatlas.io.manifest import Record, read_manifest

PATCHES, CLS, REGISTERS = "dinov3_patches", "dinov3_cls", "dinov3_registers"
BUCKETS = ((64, 64), (48, 80), (80, 48))
CROPS = ((128, 128), (96, 160), (160, 96))
PATCH, DIM, WORDS = 8, 64, 32


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for crops, features, shards and result.json")
    parser.add_argument("--photos", type=Path, help="folder of photographs; the two of the package without it")
    parser.add_argument("--crops", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    result = run(
        options.output, photos=options.photos, crops=options.crops, steps=options.steps, seeds=range(options.seeds)
    )
    print(f"loss on photographs that no training saw, after {options.steps} steps ({time.monotonic() - began:.0f} s)")
    for name, losses in result.items():
        each = "  ".join(f"{loss:.4f}" for loss in losses)
        print(f"  {name:<17} {sum(losses) / len(losses):.4f}   by seed: {each}")


def run(output: Path, *, photos: Path | None, crops: int, steps: int, seeds: range) -> dict[str, list[float]]:
    """The loss of each way to place the patches, one number a seed; also written to `output/result.json`."""
    output.mkdir(parents=True, exist_ok=True)
    training, validation = prepare(output, photos, crops)
    result: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in seeds:
        for name, way in WAYS.items():
            result[name].append(train(training, validation, way, steps, seed))
            print(f"seed {seed}, {name}: {result[name][-1]:.4f}", flush=True)
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


# -- data: crops, features, shards -------------------------------------------------------------------------------------


class Set:
    """Shards of some pictures, and the small pictures that the network is to paint."""

    def __init__(
        self, shards: Path, records: list[Record], pictures: Path, normalise: dict[str, Normalisation]
    ) -> None:
        self._shards, self._normalise = shards, normalise
        self._targets = {record.image_id: small_picture(record, pictures) for record in records}

    def loader(self, *, seed: int) -> FeatureLoader:
        """Batches of one bucket each."""
        return FeatureLoader(
            self._shards, batch_size=24, seed=seed, normalise=self._normalise, coordinates=True, window=4
        )

    def target(self, batch: Batch) -> Tensor:
        """Pixels of each patch of a batch, -1..1: (b, n, 12)."""
        return torch.stack([self._targets[image_id] for image_id in batch.ids])


def prepare(output: Path, photos: Path | None, crops: int) -> tuple[Set, Set]:
    """Crops, features and shards of training and validation, which share no photograph."""
    pictures, manifest, derived = output / "pictures", output / "dataset.jsonl", output / "derived"
    captions = cut_crops(pictures, photographs(photos), crops)
    (output / "captions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in captions))
    write_random_encoder(output / "random-dinov3.safetensors")
    build(
        Settings(
            input_dir=pictures,
            manifest=manifest,
            derived_dir=derived,
            passes=("dinov3",),
            recipe=Recipe(buckets=BUCKETS),
            encoder=str(output / "random-dinov3.safetensors"),
            captions=output / "captions.jsonl",
        )
    )
    records = read_manifest(manifest)
    parts = {
        name: [record for record in records if record.image_path.startswith(f"{name}/")] for name in ("train", "test")
    }
    found = dataset_statistics(parts["train"], FeatureStore(derived), PATCHES)
    sets = []
    for name, part in parts.items():
        pack(part, derived, output / "shards" / name, max_mb=4)
        sets.append(Set(output / "shards" / name, part, pictures, {PATCHES: found.normalisation()}))
    return sets[0], sets[1]


def photographs(folder: Path | None) -> list[Path]:
    """Pictures to cut from, by name."""
    where = Path(str(resources.files("patchatlas") / "demo_data")) if folder is None else folder
    return sorted(path for path in where.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))


def cut_crops(pictures: Path, sources: list[Path], count: int) -> list[dict[str, str]]:
    """Write `count` crops; every fifth photograph gives validation crops only. Returns captions."""
    generator = torch.Generator().manual_seed(0)
    readable = {}
    for source in sources:
        try:
            readable[source.stem] = read_image(source)
        except PatchAtlasError as error:
            print(f"left out {source.name}: {error}")
    large = [name for name, image in readable.items() if min(image.shape[:2]) >= 160]
    captions = []
    for name in ("train", "test"):
        (pictures / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        k = i % len(large)
        name, image = large[k], readable[large[k]]
        part = "test" if k % 5 == 1 else "train"
        h, w = CROPS[int(torch.randint(3, (), generator=generator))]
        y, x = (
            int(torch.randint(n - side + 1, (), generator=generator))
            for n, side in zip(image.shape, (h, w), strict=False)
        )
        path = f"{part}/{i:04d}.png"
        write_image(pictures / path, image[y : y + h, x : x + w].copy())
        captions.append({"image_path": path, "caption": f"part of {name}"})
    return captions


def write_random_encoder(path: Path) -> None:
    """A DINOv3 of one block with random weights: its tokens still say what their pixels are like."""
    config = ViTConfig(family="dinov3", patch=(PATCH, PATCH), dim=DIM, depth=1, heads=2, registers=4, ffn_hidden=DIM)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ViT(config)
    header = own.Header(config=config, mean=(0.5,) * 3, std=(0.25,) * 3, name=path.stem, licence="cc0-1.0")
    own.write(path, network.state_dict(), header)


def small_picture(record: Record, pictures: Path) -> Tensor:
    """The bucket at 2 x 2 pixels a patch, by patch: (n, 12), row-major, -1..1."""
    pixels = resample(to_pixels(read_image(pictures / record.image_path)), bucket_frame(record))
    small = F.avg_pool2d(pixels, PATCH // 2) * 2 - 1
    return F.unfold(small[None], kernel_size=2, stride=2)[0].T  # n (3 2 2)


# -- ways to place patches ---------------------------------------------------------------------------------------------


def aligned(values: Tensor, registers: Tensor, rows: int, columns: int) -> Tensor:
    """As they are."""
    del registers, rows, columns
    return values


def centre_cropped(values: Tensor, registers: Tensor, rows: int, columns: int) -> Tensor:
    """The middle of the picture stretched over all of it, as when an image processor crops before encoding."""
    del registers
    middle = values.unflatten(1, (rows, columns))[
        :, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4
    ]
    return torch.stack([resample_area(one, (rows, columns)).flatten(0, 1) for one in middle])


def register_shifted(values: Tensor, registers: Tensor, rows: int, columns: int) -> Tensor:
    """Registers taken for the first patches, and the last patches lost, as when tokens are sliced `1 : n + 1`."""
    del rows, columns
    return torch.cat([registers, values], dim=1)[:, : values.shape[1]]


def transposed(values: Tensor, registers: Tensor, rows: int, columns: int) -> Tensor:
    """Column-major, as when height and width are swapped."""
    del registers
    return values.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)


def absent(values: Tensor, registers: Tensor, rows: int, columns: int) -> Tensor:
    """Patches of no picture: the floor that all others are above or not."""
    del registers, rows, columns
    return torch.zeros_like(values)


Way = Callable[[Tensor, Tensor, int, int], Tensor]

WAYS: dict[str, Way] = {
    "aligned": aligned,
    "register-shifted": register_shifted,
    "transposed": transposed,
    "centre-cropped": centre_cropped,
    "no patches": absent,
}


# -- the network and its training --------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention of picture tokens to themselves and to the conditioning, then an MLP, both scaled by the time."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_given, self.norm_mlp = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        # Queries and keys begin equal, so attention begins with what is alike, equal places above all. Finding that out
        # would take more steps than the example has; every run begins so.
        nn.init.orthogonal_(self.query.weight, gain=1.5)
        self.key.load_state_dict(self.query.state_dict())
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, time_code: Tensor, given: Conditioning) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(time_code)[:, None].chunk(6, dim=-1)
        own = self.norm(tokens) * (1 + scale) + shift
        seen = torch.cat([own, self.norm_given(given.tokens)], dim=1)
        mask = F.pad(given.mask, (own.shape[1], 0), value=True)[:, None, None]
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, own), (self.key, seen), (self.value, seen))
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens + (1 + gate) * self.out(attended.transpose(1, 2).flatten(2))
        mlp: Tensor = self.mlp(self.norm_mlp(tokens) * (1 + scale_mlp) + shift_mlp)
        return tokens + (1 + gate_mlp) * mlp


class TinyDiT(nn.Module):
    """A diffusion transformer (Peebles and Xie, arXiv:2212.09748) that attends to a conditioning sequence."""

    def __init__(self, width: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.conditioner = PatchConditioner(width, text_dim=WORDS, patch_dim=DIM)
        self.enter, self.leave = nn.Linear(12, width), nn.Linear(width, 12)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.leave.weight)

    def forward(self, noisy: Tensor, t: Tensor, grid: tuple[int, int], given: Conditioning) -> Tensor:
        """Velocity of each pixel: (b, n, 12)."""
        angles = t[:, None] * torch.pi * 2.0 ** torch.arange(8)
        time_code = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        places = self.conditioner.place(self.conditioner.waves(grid_coordinates(*grid)))
        tokens = self.enter(noisy) + places
        for block in self.blocks:
            tokens = block(tokens, time_code, given)
        velocity: Tensor = self.leave(self.norm(tokens))
        return velocity


def train(training: Set, validation: Set, way: Way, steps: int, seed: int) -> float:
    """Train from one seed; returns the validation loss."""
    torch.manual_seed(seed)
    network = TinyDiT()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    loader, done = training.loader(seed=seed), 0
    while done < steps:
        for batch in loader:
            modes = network.conditioner.draw_modes(len(batch.ids), generator)
            loss = flow_loss(network, batch, training.target(batch), way, generator, modes)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return validate(network, validation, way)


@torch.no_grad()
def validate(network: TinyDiT, validation: Set, way: Way) -> float:
    """Mean loss with full conditioning, over the same times and noises for every network."""
    generator = torch.Generator().manual_seed(99)
    total = count = 0.0
    for _ in range(4):
        for batch in validation.loader(seed=0):
            loss = flow_loss(network, batch, validation.target(batch), way, generator, None)
            total, count = total + float(loss) * len(batch.ids), count + len(batch.ids)
    return total / count


def flow_loss(
    network: TinyDiT, batch: Batch, target: Tensor, way: Way, generator: torch.Generator, modes: Tensor | None
) -> Tensor:
    """Rectified flow (Liu et al., arXiv:2209.03003): the straight path from noise to picture has one velocity."""
    patches = batch.sequences[PATCHES]
    assert isinstance(patches, Padded)
    rows, columns = patches.grids[0].tolist()
    moved = Padded(
        way(patches.values, batch.stacked[REGISTERS], rows, columns), patches.mask, patches.grids, patches.coordinates
    )
    text, text_mask = words([caption or "" for caption in batch.captions])
    given = network.conditioner(moved, text=text, text_mask=text_mask, cls=batch.stacked[CLS], modes=modes)
    t = torch.rand(len(target), generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    mixed = torch.lerp(noise, target, t[:, None, None])
    return F.mse_loss(network(mixed, t, (rows, columns), given), target - noise)


def words(captions: list[str]) -> tuple[Tensor, Tensor]:
    """A text encoder for the example: each word is a random vector that its letters choose."""
    split = [caption.split() for caption in captions]
    longest = max(1, *(len(one) for one in split))
    tokens = torch.zeros(len(captions), longest, WORDS)
    mask = torch.zeros(len(captions), longest, dtype=torch.bool)
    for i, one in enumerate(split):
        for k, word in enumerate(one):
            generator = torch.Generator().manual_seed(int.from_bytes(word.encode()[:7], "little"))
            tokens[i, k], mask[i, k] = torch.randn(WORDS, generator=generator), True
    return tokens, mask


if __name__ == "__main__":
    main()
