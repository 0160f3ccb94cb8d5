"""List the encoders that are known: their size and licence, where to get the weights, and whether they are here.

Looks at $PATCHATLAS_WEIGHTS and the local hub cache, never at the network. Ids whose download is not gated come first.
"""

import os
from typing import Any

import tyro

from patchatlas.cli.console import Output, emit

COLUMNS = "{:<24} {:>9} {:>5}  {:<8} {:>3} {:>8}  {:<8}  {}"


class Config(Output):
    """What `patchatlas weights list` is asked to do."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only these, by name, hub id or publisher's file name."""
    here: bool = False
    """Only those that can be loaded now."""
    card: bool = False
    """Print the model card, whole, of those that one comes with: data, licences, recipe, figures, limits."""


def run(config: Config) -> int:
    """Print the list.

    Raises:
        UsageError: a name that is not known.
    """
    from patchatlas.encoders import bundled
    from patchatlas.encoders.inventory import Item, take
    from patchatlas.encoders.naming import WEIGHTS_FOLDER

    def block(item: Item) -> list[str]:
        patch = "x".join(str(side) for side in item.patch)
        parameters = f"{item.parameters / 1e6:.1f} M" if item.parameters else "-"
        facts = (parameters, item.dim, patch, item.registers, _size(item.size_bytes), item.sha256_start or "-")
        lines = [COLUMNS.format(item.name, *facts, "yes" if item.ready else "no")]
        places = [(source.id, source.gated) for source in item.sources]
        if item.bundled:
            places = [("comes with patchatlas", False)]
        elif not places:
            places = [("only from its publisher's own page", item.gated)]
        lines += [f"  {place:<48} {'gated' if gated else 'not gated':<9} {item.licence}" for place, gated in places]
        if not item.bundled and not item.sources:
            lines.append(f"  file: {item.file}")
        if item.path is not None:
            lines.append(f"  here: {item.path} ({_size(item.bytes_here)})")
        if item.has_card and not config.card:
            lines.append(f"  model card: patchatlas weights list --card {item.name}")
        if item.extra is not None and not item.extra_installed:
            lines.append(f"  needs an extra: pip install 'patchatlas[{item.extra}]'")
        return lines

    items = [item for item in take(config.names) if item.ready or not config.here]
    folder = os.environ.get(WEIGHTS_FOLDER)
    human = [COLUMNS.format("name", "params", "dim", "patch", "reg", "size", "sha256", "here").rstrip()]
    human += [line for item in items for line in block(item)]
    if not items:
        human = ["no encoder can be loaded now; see patchatlas weights list for where to get one"]
    if folder and not os.path.isdir(folder):
        human.append(f"{WEIGHTS_FOLDER} is {folder}, which is no folder")
    elif not folder:
        human.append(f"{WEIGHTS_FOLDER} is not set: only the hub cache was looked at")
    cards = {item.name: bundled.card(item.name.removeprefix(bundled.PREFIX)) for item in items if item.has_card}
    data: dict[str, Any] = {"weights_folder": folder, "encoders": [item.to_json() for item in items]}
    if config.card:
        human += [line for name, text in cards.items() for line in ("", f"-- {name} --", "", text.rstrip())]
        data["cards"] = cards
    emit(config, human="\n".join(human), data=data)
    return 0


def _size(count: int | None) -> str:
    """A number of bytes, in powers of 1000."""
    if not count:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
