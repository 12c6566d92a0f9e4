import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import init
from archwright.parts.block import glu_variants

FUNCTIONS = {"sigmoid": torch.sigmoid, "identity": lambda t: t, "relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def net(body=glu_variants.build, inputs=6, **hp):
    g = ops.edit()
    return rough(init(g.finish(body(g, g.input("x", (None, inputs)), **hp))), seed=1)


@pytest.mark.parametrize("act", glu_variants.ACTS)
def test_it_is_the_papers_formula(act):
    made, x = net(out=4, act=act), torch.randn(20, 6)
    w, b = made.weights["linear.weight"], made.weights["linear.bias"]
    expected = FUNCTIONS[act](x @ w[:4].T + b[:4]) * (x @ w[4:].T + b[4:])
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


def test_bilinear_without_biases_is_quadratic():
    made, x = net(out=4, act="identity", bias=False), torch.randn(20, 6)
    torch.testing.assert_close(outputs(made, (2 * x,))[0], 4 * outputs(made, (x,))[0], rtol=1e-5, atol=1e-5)


def test_two_thirds_of_the_units_make_as_many_weights_as_a_plain_feed_forward_layer():
    assert net(glu_variants.feed_forward, inputs=12, hidden=32).cost().params == 2 * 12 * 48


def test_no_units_are_refused():
    with pytest.raises(ArchwrightError, match="out is 0"):
        net(out=0)


def test_claim_holds():
    assert glu_variants.claim().held
