"""Row-major order in memory."""

import torch

from archwright import ops
from tests.ops.harness import check


def test_contiguous():
    check("contiguous", {}, [torch.randn(2, 3, 4)], reference=lambda x: x.contiguous())
    graph = ops.edit()
    x = graph.input("x", (None, 3))
    made = graph.finish(graph.add("contiguous", graph.add("transpose", x, dim0=0, dim1=1)))
    (y,) = ops.run(made, {}, [torch.randn(2, 3)])
    assert y.is_contiguous()
