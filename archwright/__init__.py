"""archwright makes neural networks: an architecture is data.

The public names are loaded when they are first used, so that `import archwright` does no work.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers take it for true; importing typing would be most of the time that this takes

__version__ = "0.1.0"

_HOME = {
    "Graph": "archwright.ir",
    "Node": "archwright.ir",
    "Type": "archwright.ir",
    "Pattern": "archwright.ir",
    "Budget": "archwright.core.records",
    "Claim": "archwright.core.records",
    "Figure": "archwright.core.records",
    "Space": "archwright.core.space",
    "Spec": "archwright.core.space",
    "Supernet": "archwright.core.supernet",
    "use": "archwright.core.registry",
    "Data": "archwright.data.data",
    "builtin": "archwright.data.builtin",
    "from_arrays": "archwright.data.data",
    "edit": "archwright.ops",
    "Net": "archwright.net.net",
    "init": "archwright.net.net",
    "load": "archwright.net.net",
    "axes": "archwright.net.axes",
    "batch": "archwright.net.batch",
    "build": "archwright.net.build",
    "capture": "archwright.exchange.capture",
    "draw": "archwright.exchange.draw",
    "rewrite": "archwright.net.rewrite",
    "to_onnx": "archwright.exchange.onnx",
    "to_source": "archwright.exchange.source",
    "parts": "archwright.parts",
    "claims": "archwright.flows.claims",
    "search": "archwright.flows.search",
    "Bundle": "archwright.flows.bundle",
    "ArchClassifier": "archwright.sklearn",
    "ArchRegressor": "archwright.sklearn",
    "open_data": "archwright.data.open",
}
"""Public name -> module that defines it; `parts` is the module itself."""

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from typing import Any

    from archwright.core.records import Budget, Claim, Figure
    from archwright.core.registry import use
    from archwright.core.space import Space, Spec
    from archwright.core.supernet import Supernet
    from archwright.data.builtin import builtin
    from archwright.data.data import Data, from_arrays
    from archwright.data.open import open_data
    from archwright.exchange.capture import capture
    from archwright.exchange.draw import draw
    from archwright.exchange.onnx import to_onnx
    from archwright.exchange.source import to_source
    from archwright.flows.bundle import Bundle
    from archwright.flows.claims import claims
    from archwright.flows.search import search
    from archwright.ir import Graph, Node, Pattern, Type
    from archwright.net.axes import axes
    from archwright.net.batch import batch
    from archwright.net.build import build
    from archwright.net.net import Net, init, load
    from archwright.net.rewrite import rewrite
    from archwright.ops import edit
    from archwright.sklearn import ArchClassifier, ArchRegressor


def __getattr__(name: str) -> Any:
    try:
        home = importlib.import_module(_HOME[name])
        value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    except KeyError:
        raise AttributeError(f"module 'archwright' has no attribute '{name}'") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
