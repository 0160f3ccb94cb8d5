"""Key maps: the state dicts of other projects into ours, explicitly and strictly, one file a project.

A map is a pure function `state dict, facts -> (our state dict, ViTConfig)`. Which map serves is seen from the keys.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from patchatlas.encoders.keymaps import huggingface, meta, own, timm
from patchatlas.encoders.keymaps.layout import Facts, State
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import WeightsError


@runtime_checkable
class KeyMap(Protocol):
    """What each file here offers for a foreign layout."""

    LAYOUT: str

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether these are keys of this layout."""

    def translate(self, state: Mapping[str, Tensor], facts: Facts) -> tuple[State, ViTConfig]:
        """Our state dict and its config."""


FOREIGN: tuple[KeyMap, ...] = (timm, huggingface, meta)
"""In the order in which they are asked: timm's keys are special cases of Meta's."""

KNOWN = ", ".join(layout.LAYOUT for layout in (meta, huggingface, timm, own))


def recognise(state: Mapping[str, Tensor]) -> str:
    """Name of the foreign layout that these keys have.

    Raises:
        WeightsError: none of those known.
    """
    return _map_for(state).LAYOUT


def translate(state: Mapping[str, Tensor], facts: Facts) -> tuple[State, ViTConfig]:
    """Our state dict and its config, from a foreign layout.

    Raises:
        WeightsError: no layout known, or one that is not complete.
    """
    return _map_for(state).translate(state, facts)


def _map_for(state: Mapping[str, Tensor]) -> KeyMap:
    for layout in FOREIGN:
        if layout.fits(state):
            return layout
    examples = ", ".join(list(state)[:6])
    raise WeightsError(
        f"the layout of these weights is not known; their keys begin with {examples or 'nothing'}. "
        f"Layouts known: {KNOWN}. Give a DINOv2 or DINOv3 backbone, or convert it with: patchatlas weights convert"
    )
