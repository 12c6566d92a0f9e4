import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.net import init
from archwright.parts.block import gru as part


def net(shape=(None, 3, 7), **hp):
    g = ops.edit()
    return rough(init(g.finish(part.build(g, g.input("x", shape), **hp))), seed=1)


def states(w, x, suffix=""):
    """The equations, step by step: x [N, C, T] -> [N, width, T]."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    wi, wh, bi, bh = (w[f"gru.{name}_l0{suffix}"] for name in names)
    h, found = torch.zeros(len(x), wh.shape[1]), []
    for step in x.unbind(2):
        (ar, az, an), (br, bz, bn) = F.linear(step, wi, bi).chunk(3, 1), F.linear(h, wh, bh).chunk(3, 1)
        r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
        h = (1 - z) * (an + r * bn).tanh() + z * h
        found.append(h)
    return torch.stack(found, 2)


def test_it_is_the_equations():
    made, x = net(width=5), torch.randn(4, 3, 7)
    torch.testing.assert_close(outputs(made, (x,))[0], states(made.weights, x), rtol=1e-4, atol=1e-5)


def test_the_second_direction_reads_the_series_backwards():
    made, x = net(width=4, both=True), torch.randn(4, 3, 7)
    back = states(made.weights, x.flip(2), "_reverse").flip(2)
    expected = torch.cat([states(made.weights, x), back], 1)
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-4, atol=1e-5)


def test_parameters_follow_the_formula():
    assert net((None, 6, 9), width=5).cost().params == 3 * 5 * (6 + 5 + 2)
