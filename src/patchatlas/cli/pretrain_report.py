"""Write a page of the run in RUN: curves, verdicts, crops, and the features of fixed inputs at each checkpoint."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress

if TYPE_CHECKING:
    from patchatlas.pretrain.config import PretrainConfig
    from patchatlas.pretrain.data import Opened
    from patchatlas.pretrain.run_folder import RunFolder

CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Loss",
        (
            "loss",
            "dino",
            "ibot",
            "koleo",
            "match",
            "distil",
            "distil_across",
            "distil_cls",
            "gram",
            "sigreg_normality",
            "sigreg_agreement",
        ),
    ),
    ("Anchors that are more like their place than like any negative", ("match_accuracy",)),
    ("Entropy over ln K: 1 is uniform collapse", ("row_entropy", "marginal_entropy")),
    ("What is left to learn, nats", ("kl",)),
    ("Prototypes", ("dead_prototypes", "duplicate_prototypes")),
    ("Spread of features: 0 is collapse", ("fg_std", "bg_std", "cls_std")),
    ("Cosine of pairs of features: 1 is collapse", ("fg_cosine", "bg_cosine", "cls_cosine")),
    ("KoLeo of the closest class tokens: above 14 they are equal", ("koleo_closest",)),
    ("Rank of features over D", ("fg_rank", "cls_rank", "cls_lidar")),
    ("Slope of the eigenvalues of foreground tokens", ("fg_alpha",)),
    ("Views of a sample: 0 is the same", ("cls_alignment",)),
    ("Uniformity of class tokens: 0 is collapse, -4 the best", ("cls_uniformity",)),
    ("Gaussian test of features: 1 is a Gaussian", ("fg_sigreg", "cls_sigreg")),
    ("Air or not", ("foreground_r2", "background_share")),
    ("What class tokens leave open of it, over the first look", ("foreground_r2_left",)),
    ("Change of the cosines of patches since the Gram teacher", ("gram_drift",)),
    ("Foreground in crops", ("globals_foreground", "globals_foreground_min", "locals_foreground")),
    ("Crops flagged", ("below_ratio", "flagged")),
    ("Overlap of global crops", ("overlap",)),
    ("How evenly crops are weighed: 1 is all alike", ("globals_weight_even", "locals_weight_even")),
    ("Gradient before it is cut", ("grad/vit", "grad/dino_head", "grad/ibot_head", "grad/projector")),
    ("Learning rate", ("lr",)),
    ("Teacher", ("momentum", "ema_gap")),
    ("Samples a second", ("samples_a_second",)),
)
"""Captions, and the numbers of the log that are drawn under each."""

STATES = {"ok": (40, 140, 90), "warn": (215, 150, 20), "collapse": (200, 50, 50)}

STYLE = """
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1.2rem; margin-top: 1rem; }
svg text { font-size: 11px; fill: currentColor; }
section > figure { display: inline-block; margin: 1rem 1rem 0 0; }
section > figure img { width: auto; max-width: 100%; }
"""


class Config(Output):
    """What `patchatlas pretrain report` is asked to do."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the page; RUN/report if not given."""
    anchors: Annotated[int, Field(ge=0)] = 2
    """Fixed inputs whose features are shown."""
    checkpoints: Annotated[int, Field(ge=1)] = 6
    """Checkpoints that they are shown at, spread evenly; the last is one of them."""
    crops: Annotated[int, Field(ge=0)] = 2
    """Samples whose crops are shown."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def run(config: Config) -> int:
    """Write the page and print where it is.

    Raises:
        InputError: no run there, or its data is gone.
        UsageError: its data is not what it learnt from.
        FormatError: the run cannot be read.
    """
    from patchatlas.cli.main import OK
    from patchatlas.errors import UsageError
    from patchatlas.files import write_text
    from patchatlas.pretrain.config import read_config
    from patchatlas.pretrain.data import open_source
    from patchatlas.pretrain.monitors.log import read_log
    from patchatlas.pretrain.run_folder import RunFolder
    from patchatlas.viz.html import document

    folder = RunFolder(config.run)
    facts = folder.read_facts()
    settings = read_config(folder.config)
    output = config.output or config.run / "report"
    records = list(read_log(folder.log)) if folder.log.exists() else []
    opened = open_source(settings) if config.anchors or config.crops else None
    if opened is not None and opened.fingerprint != facts["data"]:
        raise UsageError(
            f"{settings.data} is not what the run in {config.run} learnt from, so its crops and inputs cannot be "
            "shown; put the data back as it was, or leave them out with --crops 0 --anchors 0"
        )
    output.mkdir(parents=True, exist_ok=True)
    parts = [_head(settings, facts), _verdicts(records), _curves(records)]
    if opened is not None:
        parts.append(_crops(opened, output, config.crops))
        parts.append(_features(folder, opened, settings, output, config))
    page = output / "index.html"
    write_text(page, document("\n".join(parts), title=f"pretraining {settings.name}", colours=STATES, style=STYLE))
    emit(config, human=f"wrote {page}", data={"page": str(page), "done": facts["done"], "steps": facts["steps"]})
    return OK


def _head(settings: "PretrainConfig", facts: dict[str, Any]) -> str:
    level, verdict = "", "none yet"
    if facts["verdict"] is not None:
        level = facts["verdict"]["level"]
        verdict = _word(facts["verdict"])
    dim, depth, heads = settings.model.shape
    network = settings.model.weights or f"{depth} blocks, tokens of {dim}, {heads} heads"
    good = f"The last good checkpoint is that after {facts['good']} steps." if facts["good"] else ""
    return f"""<h1>{escape(settings.name)}</h1>
<p>{facts["done"]} of {facts["steps"]} steps on {escape(settings.data)}: {escape(network)}, patch
{"x".join(map(str, settings.crops.patch))}. Verdict at the last checkpoint:
<span class="state {level}">{verdict}</span>. {good}</p>"""


def _word(verdict: dict[str, Any]) -> str:
    """The level of a stored verdict; of one that says nothing yet, that."""
    from patchatlas.pretrain.monitors.verdict import in_words

    return in_words(verdict["level"], judged_from=verdict.get("judged_from", 0))


def _verdicts(records: Sequence[dict[str, Any]]) -> str:
    """A row for each alarm, from its first step on to its last."""
    spans: dict[str, list[Any]] = {}
    for record in records:
        for alarm in record.get("verdict", {}).get("alarms", ()):
            span = spans.setdefault(alarm["rule"], [record["step"], record["step"], alarm])
            span[1:] = [record["step"], alarm]
    if not spans:
        early = records[-1].get("verdict", {}).get("judged_from", 0) if records else 0
        rest = (
            f" Only faults that are seen at once are judged before step {early}, and nothing else was." if early else ""
        )
        return f"<section><h2>Verdicts</h2><p>No alarm.{rest}</p></section>"
    rows = "\n".join(
        f'<tr><td><span class="state {alarm["level"]}">{escape(rule)}</span></td><td class="number">{first}</td>'
        f'<td class="number">{last}</td><td>{escape(alarm["why"])} {escape(alarm["change"])}</td></tr>'
        for rule, (first, last, alarm) in spans.items()
    )
    return f"""<section><h2>Verdicts</h2><div class="wide"><table>
<thead><tr><th>alarm</th><th class="number">from step</th><th class="number">to step</th><th>last said</th></tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _curves(records: Sequence[dict[str, Any]]) -> str:
    from patchatlas.viz.pretrain import curve

    drawn = []
    for caption, names in CURVES:
        lines = {
            name: [(float(record["step"]), record["numbers"][name]) for record in records if name in record["numbers"]]
            for name in names
        }
        held = {name: line for name, line in lines.items() if line}
        if held:
            drawn.append(curve(held, caption=caption))
    return f'<section><h2>Curves</h2><div class="curves">{"".join(drawn)}</div></section>'


def _crops(opened: "Opened", output: Path, count: int) -> str:
    """The first samples of the run, as the network sees them."""
    from patchatlas.io.images import write_image
    from patchatlas.viz.crops import draw_crop, sheet

    figures = []
    for index in range(min(count, len(opened.source))):
        sample = opened.source.sample(index, 0)
        crops = [*sample.globals, *sample.locals]
        pictures = [
            draw_crop(pixels, record.voxel_mm, 160) for pixels, record in zip(crops, sample.records, strict=True)
        ]
        labels = [
            f"{'global' if k < len(sample.globals) else 'local'} {record.fg_ratio:.2f} {record.flag}"
            for k, record in enumerate(sample.records)
        ]
        name = f"crops-{index}.png"
        write_image(output / name, sheet(pictures, labels, columns=2))
        figures.append(_figure(name, f"{sample.records[0].volume}: every crop with its share of foreground"))
    return f"<section><h2>Crops</h2>{''.join(figures)}</section>"


def _features(folder: "RunFolder", opened: "Opened", settings: "PretrainConfig", output: Path, config: Config) -> str:
    """Principal components of the anchors' features, a row a checkpoint."""
    from patchatlas.encoders.loading import load_encoder
    from patchatlas.io.images import write_image
    from patchatlas.pretrain.anchors import anchors_of, colours_of
    from patchatlas.viz.pretrain import slices

    anchors = anchors_of(opened, config.anchors)
    teachers = folder.teachers()
    if not anchors or not teachers:
        return ""
    steps = list(teachers)
    count = min(config.checkpoints, len(steps))
    chosen = [steps[-1 - round(k * (len(steps) - 1) / max(1, count - 1))] for k in reversed(range(count))]
    figures = []
    for number, anchor in enumerate(anchors):
        name = f"anchor-{number}.png"
        write_image(output / name, slices(anchor.pixels, anchor.spacing, 240))
        figures.append(_figure(name, f"{anchor.name}, as the network sees it"))
    with progress() as bar:
        for step in bar.track(chosen, description="features"):
            encoder = load_encoder(teachers[step], device=config.device, dtype="fp32")
            for number, colours in enumerate(colours_of(anchors, encoder, settings)):
                name = f"anchor-{number}-step-{step:08d}.png"
                write_image(output / name, slices(colours.values, colours.anchor.spacing, 240))
                figures.append(_figure(name, f"{colours.anchor.name} after {step} steps"))
    return f"""<section><h2>Features of fixed inputs</h2>
<p>The first three principal components of the teacher's foreground tokens as red, green and blue, one basis for all
inputs of a checkpoint. From one checkpoint to the next components may change places, and so colours.</p>
{"".join(figures)}</section>"""


def _figure(name: str, caption: str) -> str:
    return (
        f'<figure><img src="{escape(name)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
