"""From flags and files to the settings of re-identification: preset, file, flags, --set, later ones first in rank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.reid.config import ReidConfig


def settings_of(
    *, preset: str | None, file: Path | None, flags: Mapping[str, Any], assignments: Sequence[str]
) -> "ReidConfig":
    """All settings.

    Args:
        flags: by dotted name; those that are None were not given.
        assignments: of --set, such as `link.threshold=0.6`.

    Raises:
        UsageError: an unknown preset or setting, a bad value or an impossible mix.
        InputError: the file cannot be opened.
    """
    from patchatlas.reid.config import make_config, read_settings

    layers: list[Mapping[str, Any]] = [] if file is None else [read_settings(file)]
    layers += [_nested(name, value) for name, value in flags.items() if value is not None]
    layers += [_assigned(text) for text in assignments]
    return make_config(*layers, preset=preset)


def _assigned(text: str) -> dict[str, Any]:
    import yaml

    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise UsageError(f"--set {text!r} is no assignment; write SETTING=VALUE, as link.threshold=0.6")
    try:
        return _nested(name.strip(), yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise UsageError(f"--set {text!r}: the value is not YAML ({error})") from error


def _nested(name: str, value: Any) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}
