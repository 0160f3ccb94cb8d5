"""Make the bundled encoder of a training run: its weights in half precision, and its model card.

    python -m tools.bundled.pack RUN/encoder.safetensors --facts FACTS.yaml [--figures FIGURES.md] [--into FOLDER]

FACTS.yaml tells what the run does not (see `FACTS`). Written are NAME.safetensors and NAME.md, by default into the
package, and printed is the line for `SHA256` in encoders/bundled.py. Linears of the blocks are stored as float16, all
else as float32; `agreement` says how near the tokens stay. A file above 24 MB is refused. The card names every picture
of `pictures.csv` that was used, with author and licence.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from patchatlas.encoders import bundled, checkpoint
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.vit import dtype_of
from patchatlas.errors import PatchAtlasError, UsageError, WeightsError
from patchatlas.yaml_file import read_yaml
from tools.bundled.pictures import Row, read_table

MOST_BYTES = 24_000_000
LICENCE = "Apache-2.0"
FACTS = ("name", "seed", "hardware", "time", "date", "recipe", "textures", "limits", "command")
"""What FACTS.yaml holds: texts, and `seed` a whole number. `recipe`, `textures` and `limits` are paragraphs of the
card, `command` rebuilds the weights."""


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        weights: the encoder.
        card: the model card.
        sha256: of the encoder's file.
        size_bytes: its length.
    """

    weights: Path
    card: Path
    sha256: str
    size_bytes: int


def main(argv: list[str] | None = None) -> int:
    """Pack, and say what is left to do."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("encoder", type=Path, metavar="RUN/encoder.safetensors")
    parser.add_argument("--facts", type=Path, required=True, help="YAML file: " + ", ".join(FACTS))
    parser.add_argument("--figures", type=Path, help="Markdown tables of `python -m benchmarks.bundled`")
    parser.add_argument("--pictures", type=Path, help="pictures.csv of the folder that was trained on; default: ours")
    parser.add_argument("--into", type=Path, default=bundled.FOLDER)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.into.mkdir(parents=True, exist_ok=True)
    try:
        done = pack(
            options.encoder,
            options.into,
            facts=read_facts(options.facts),
            figures=options.figures.read_text(encoding="utf-8") if options.figures else "",
            pictures=read_table(options.pictures or Path(__file__).with_name("pictures.csv")),
        )
    except PatchAtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    halved = agreement(options.encoder, done.weights, dtype="fp32")
    bf16 = agreement(done.weights, done.weights, dtype="bf16")
    print(f"{done.weights}: {done.size_bytes:,} bytes; card: {done.card}")
    print(f"least cosine of a token: {halved:.6f} to the file it was made from, {bf16:.6f} between fp32 and bf16")
    print(f'SHA256 in src/patchatlas/encoders/bundled.py: "{done.weights.stem}": "{done.sha256}",')
    return 0


def pack(encoder: Path, into: Path, *, facts: Mapping[str, str | int], figures: str, pictures: list[Row]) -> Packed:
    """Write weights and card.

    Args:
        encoder: a file of our own layout, as a run leaves it.
        into: an existing folder.
        facts: see `FACTS`.
        figures: what the card says under Figures, Markdown.
        pictures: what was looked at for training.

    Raises:
        WeightsError: not a file of ours, or more than `MOST_BYTES` in half precision.
    """
    weights = checkpoint.read(encoder)
    if not own.fits(weights.metadata):
        raise WeightsError(f"{encoder} is not a patchatlas.encoder file; give RUN/encoder.safetensors")
    told = own.read_header(weights.metadata)
    name = str(facts["name"])
    state = {key: value.to(dtype_of(key, torch.float16)) for key, value in weights.state.items()}
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > MOST_BYTES:
        raise WeightsError(f"{encoder} is {size:,} bytes in half precision, at most {MOST_BYTES:,} may be bundled")
    kept = {key: facts[key] for key in ("seed", "hardware", "time", "date", "command")}
    header = replace(
        told,
        name=bundled.PREFIX + name,
        licence=LICENCE,
        source=encoder.name,
        source_sha256=weights.sha256,
        card={**kept, "pictures": sum(row.used == "yes" for row in pictures)},
    )
    path = into / f"{name}.safetensors"
    own.write(path, state, header)
    digest = checkpoint.digest([path])
    card = into / f"{name}.md"
    card.write_text(card_of(header, digest, facts=facts, figures=figures, pictures=pictures), encoding="utf-8")
    return Packed(path, card, digest, path.stat().st_size)


def card_of(
    header: own.Header, sha256: str, *, facts: Mapping[str, str | int], figures: str, pictures: list[Row]
) -> str:
    """The model card, Markdown; arguments as in `pack`."""
    network = header.config
    used = [row for row in pictures if row.used == "yes"]
    lines = [
        f"# {header.name}",
        "",
        f"A {network.family} ViT with {network.depth} blocks of {network.dim}, {network.heads} heads, patch "
        f"{network.patch[0]} and {network.registers} registers; linears in float16. Licence: {header.licence}. "
        f"SHA-256 {sha256}.",
        "",
        "## Limits",
        "",
        str(facts["limits"]).strip(),
        "",
        "## Training",
        "",
        str(facts["recipe"]).strip(),
        "",
        f"Seed {facts['seed']}; {facts['hardware']}; {facts['time']}; {facts['date']}. Rebuild: `{facts['command']}`.",
        "",
        "## Data",
        "",
        f"{len(used)} pictures, listed at the end, and textures: {str(facts['textures']).strip()}",
        "Held out completely: graf, aloe, the motorcycle pair, box, and everything else of opencv-doc.",
        "",
        "## Figures",
        "",
        figures.strip() or "Not measured.",
        "",
        "## Pictures, authors, licences",
        "",
        "For training they were shrunk, cropped, turned, bent and recoloured. The texts of the CC-BY licences are at "
        "creativecommons.org/licenses/by.",
        "",
        "| package | author | licence | files | what the package says |",
        "| --- | --- | --- | --- | --- |",
        *_credits(used),
    ]
    return "\n".join(lines) + "\n"


def _credits(used: list[Row]) -> list[str]:
    """Rows of a table: the files of one package, author and licence together."""
    files: dict[tuple[str, ...], list[str]] = {}
    for row in used:
        files.setdefault((f"{row.package} {row.version}", row.author, row.licence, row.remark), []).append(row.file)
    return [
        f"| {package} | {author} | {licence} | {', '.join(sorted(names))} | {remark} |"
        for (package, author, licence, remark), names in files.items()
    ]


def read_facts(path: Path) -> dict[str, str | int]:
    """The facts of a YAML file.

    Raises:
        UsageError: one is missing, empty or not known.
    """
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no settings; it must hold {', '.join(FACTS)}")
    if set(found) != set(FACTS) or not all(str(value).strip() for value in found.values()):
        raise UsageError(f"{path} holds {', '.join(map(str, found))}; it must hold {', '.join(FACTS)}")
    return {str(key): value for key, value in found.items()}


def agreement(reference: Path, other: Path, *, dtype: str, side: int = 224, seed: int = 0) -> float:
    """Least cosine between patch tokens of two encoder files for the same input, the reference in fp32.

    Args:
        dtype: in which the other one computes, `fp32` or `bf16`.
        side: of the input, pixels; a multiple of the patch.
        seed: of the input, squares of 8 px, each of one colour.
    """
    coarse = torch.rand(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    pixels = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    one, two = (load_encoder(path, device="cpu", dtype=kind) for path, kind in ((reference, "fp32"), (other, dtype)))
    return float(F.cosine_similarity(one(pixels).patches, two(pixels).patches, dim=-1).min())


if __name__ == "__main__":
    sys.exit(main())
