"""Make torchvision importable beside a torch build that its compiled operators were not made for.

The torchvision wheel of the package index is compiled for CUDA. Beside a CPU-only torch its extension cannot be
loaded, and `import torchvision` then stops with "operator torchvision::nms does not exist", because it registers shape
functions for operators that nobody declared. timm and spikingjelly both import torchvision. Declaring the two operators
is enough: everything can be imported then, and only calling the two fails. Import this module before torchvision, timm
or spikingjelly.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declarations: list[torch.library.Library] = []  # a declaration lives as long as its Library object


def operators_declared() -> bool:
    """Tell whether this torchvision came without operators for this torch, so that they had to be declared."""
    return bool(_declarations)


def _import_torchvision() -> None:
    """Import torchvision, declaring its missing operators where the import fails for want of them."""
    try:
        import torchvision  # noqa: PLC0415
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
        _declarations.append(library)
        import torchvision  # noqa: F401, PLC0415


_import_torchvision()
