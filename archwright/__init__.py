"""archwright makes neural networks: an architecture is data.

The public names are loaded when they are first used, so that `import archwright` does no work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Graph": "archwright.ir",
    "Node": "archwright.ir",
    "Type": "archwright.ir",
    "Pattern": "archwright.ir",
    "edit": "archwright.ops",
    "Net": "archwright.net.net",
    "init": "archwright.net.net",
    "load": "archwright.net.net",
    "axes": "archwright.net.axes",
    "batch": "archwright.net.batch",
    "build": "archwright.net.build",
    "capture": "archwright.net.capture",
    "draw": "archwright.net.draw",
    "rewrite": "archwright.net.rewrite",
    "to_onnx": "archwright.net.onnx",
    "to_source": "archwright.net.source",
}
"""Public name -> module that defines it."""

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from archwright.ir import Graph, Node, Pattern, Type
    from archwright.net.axes import axes
    from archwright.net.batch import batch
    from archwright.net.build import build
    from archwright.net.capture import capture
    from archwright.net.draw import draw
    from archwright.net.net import Net, init, load
    from archwright.net.onnx import to_onnx
    from archwright.net.rewrite import rewrite
    from archwright.net.source import to_source
    from archwright.ops import edit


def __getattr__(name: str) -> Any:
    try:
        value = getattr(importlib.import_module(_HOME[name]), name)
    except KeyError:
        raise AttributeError(f"module 'archwright' has no attribute '{name}'") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
