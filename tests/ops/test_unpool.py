"""Max pooling with places against torch, and the way back through scatter."""

import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from tests.ops.harness import check

WINDOWS = ({"kernel": 2}, {"kernel": 3, "stride": 2, "padding": 1}, {"kernel": 2, "ceil": True})


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("attrs", WINDOWS)
def test_max_pool_indices(rank, attrs):
    torch.manual_seed(rank)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    given = {{"kernel": "kernel_size", "ceil": "ceil_mode"}.get(key, key): value for key, value in attrs.items()}
    x = torch.randn(2, 3, *[7, 6, 5][:rank])
    check("max_pool_indices", attrs, [x], reference=lambda x: pool(x, **given, return_indices=True))


def test_places_lead_back():
    g = ops.edit()
    x = g.input("x", (None, 3, 4, 6))
    y, places = g.add("max_pool_indices", x, kernel=2)
    zeros = g.add("flatten", g.add("mul", x, value=0.0), start=2)
    back = g.add("scatter", zeros, g.add("flatten", places, start=2), g.add("flatten", y, start=2), dim=2)
    graph = g.finish(g.add("reshape", back, shape=(-1, 3, 4, 6)))
    given = torch.randn(2, 3, 4, 6)
    values, indices = F.max_pool2d(given, 2, return_indices=True)
    torch.testing.assert_close(ops.run(graph, {}, [given])[0], F.max_unpool2d(values, indices, 2))
