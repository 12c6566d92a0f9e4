"""The weights of a net that are layers: what lenses on weights look at."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from archwright import ops
from archwright.errors import ArchwrightError
from archwright.ir import Graph
from archwright.net.net import Net


def kernel_names(graph: Graph) -> tuple[str, ...]:
    """Names of the trained weights of two or more dimensions that multiply something: matrices and kernels of
    convolutions, not biases, gains, statistics or free parameters (positions), in the order of the graph."""
    free = tuple([f"{node.slot}." for node in graph.nodes if node.op == "param" and node.slot is not None])
    found = []
    for name, param in ops.params(graph).items():
        matrix = not param.buffer and len(param.shape) >= 2 and param.dtype.startswith(("float", "bfloat"))
        if matrix and not name.startswith(free):
            found.append(name)
    return tuple(found)


def kernels(net: Net) -> Mapping[str, Tensor]:
    """Those weights, by name. Raises `ArchwrightError` where there is none, or one is not finite."""
    found = {name: net.weights[name].detach() for name in kernel_names(net.graph)}
    if not found:
        raise ArchwrightError("the net has no weight matrix or kernel, expected at least one layer to look at")
    odd = [name for name, weight in found.items() if not bool(weight.isfinite().all())]
    if odd:
        raise ArchwrightError(f"weights {', '.join(odd[:3])} are not finite, expected numbers: training diverged")
    return found
