import math

import pytest
import torch

from archwright import ops
from archwright.core.checks.common import outputs
from archwright.errors import ArchwrightError
from archwright.net.net import init
from archwright.parts.block import fourier_features


def net(inputs=3, **hp):
    g = ops.edit()
    return init(g.finish(fourier_features.build(g, g.input("x", (None, inputs)), **hp)), 1)


def test_it_is_the_papers_formula():
    made, x = net(features=7, sigma=0.3), torch.randn(20, 3)
    angle = x @ made.weights["frequencies"].T
    torch.testing.assert_close(outputs(made, (x,))[0], torch.cat([angle.cos(), angle.sin()], 1))


def test_scalar_products_depend_on_differences_only():
    made, x, z, move = net(features=16), torch.randn(20, 3), torch.randn(20, 3), torch.randn(3)
    one, two, moved_one, moved_two = [outputs(made, (t,))[0] for t in (x, z, x + move, z + move)]
    torch.testing.assert_close((one * two).sum(1), (moved_one * moved_two).sum(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((one * one).sum(1), torch.full((20,), 16.0))


def test_sigma_is_the_deviation_in_cycles():
    deviation = float(net(features=4000, sigma=0.25).weights["frequencies"].std())
    assert deviation == pytest.approx(2 * math.pi * 0.25, rel=0.03)


def test_nothing_is_learned():
    assert net().cost().params == 0


@pytest.mark.parametrize("hp", [{"features": 0}, {"sigma": 0.0}, {"sigma": float("nan")}])
def test_other_settings_are_refused(hp):
    with pytest.raises(ArchwrightError, match="expected at least 1"):
        net(**hp)


def test_claim_holds():
    assert fourier_features.claim().held
