"""Make torchvision importable beside a torch that its compiled part was not built for; timm cannot do without it.

A CUDA build of torchvision (the package's default) cannot load its compiled part next to a CPU build of torch. Its
import then fails, because its Python part describes operators, `nms` and `qnms`, that are not declared. With a
declaration the import works, and everything but the detection operators can be used. Where torchvision imports without
an error, nothing is done.
"""

import functools
import importlib
import sys

import torch

_MISSING_OPERATOR = "operator torchvision::"
_OPERATORS = ("nms", "qnms")


def make_importable() -> None:
    """Import torchvision; declare its operators where they are missing."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if not str(error).startswith(_MISSING_OPERATOR):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half-imported package
        _declare_operators()
        importlib.import_module("torchvision")


@functools.cache
def _declare_operators() -> torch.library.Library:
    """Declare the operators; cached, since they exist only as long as the library object."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # untyped in torch
    for name in _OPERATORS:
        signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(signature)  # type: ignore[no-untyped-call]  # untyped in torch
    return library
