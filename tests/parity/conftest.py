"""Makes timm importable: it wants torchvision, and torchvision's wheels want the CUDA build of torch.

`make parity` puts both, without their dependencies, into a folder of its own and names it in PYTHONPATH.
"""

import importlib.util

import pytest
import torch

for name in ("timm", "torchvision"):
    if importlib.util.find_spec(name) is None:
        raise pytest.UsageError(f"tests/parity needs {name}; run it with: make parity")

# Importing torchvision registers the shapes of two operators and fails where its C++ library, built for CUDA, could not
# define them. Nothing here calls them: declaring them is enough, for as long as this object lives.
_OPERATORS = torch.library.Library("torchvision", "DEF")
_OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
