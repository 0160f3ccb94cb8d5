"""Read files of settings."""

from pathlib import Path
from typing import Any

import yaml

from patchatlas.errors import InputError, UsageError


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: the file cannot be opened.
        UsageError: it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
