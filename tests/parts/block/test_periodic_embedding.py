import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.net.net import Net, init
from archwright.parts.block import periodic_embedding


def net(shape=(None, 4), **hp):
    g = ops.edit()
    return rough(init(g.finish(periodic_embedding.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x, lite, plain):
    """A column at a time."""
    made = [x] if plain else []
    for f in range(x.shape[1]):
        angle = x[:, f : f + 1] * w["frequencies"][f]
        v = torch.cat([angle.sin(), angle.cos()], 1)
        y = F.linear(v, w["linear.weight"], w["linear.bias"]) if lite else v @ w["weight"][f] + w["bias"][f]
        made.append(F.relu(y))
    return torch.cat(made, 1)


@pytest.mark.parametrize("lite", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_it_is_the_papers_formula(lite, plain):
    made, x = net(frequencies=5, out=3, lite=lite, plain=plain), torch.randn(30, 4)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x, lite, plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("lite", "expected"), [(True, 4 * 6 + 2 * 6 * 5 + 5), (False, 4 * 6 + 4 * (2 * 6 * 5 + 5))])
def test_parameters_follow_the_formula(lite, expected):
    assert net(frequencies=6, out=5, lite=lite).cost().params == expected


def test_a_columns_output_depends_on_that_column_alone():
    made, x = net(out=3), torch.randn(5, 4)
    other = x.clone()
    other[:, 1] += 1
    changed = (outputs(made, (x,))[0] != outputs(made, (other,))[0]).any(0)
    assert changed[3:6].any()
    assert not changed[:3].any()
    assert not changed[6:].any()


def test_with_frequencies_of_zero_it_is_constant():
    made = net()
    still = Net(made.graph, {**made.weights, "frequencies": torch.zeros_like(made.weights["frequencies"])})
    one, two = [outputs(still, (torch.randn(3, 4),))[0] for _ in range(2)]
    torch.testing.assert_close(one, two)


def test_other_inputs_and_settings_are_refused():
    with pytest.raises(TypeMismatch, match=r"expected \[N, columns\]"):
        net(shape=(None, 4, 2))
    for hp in ({"frequencies": 0}, {"out": 0}, {"sigma": 0.0}):
        with pytest.raises(ArchwrightError, match="expected at least 1"):
            net(**hp)


def test_claim_holds():
    assert periodic_embedding.claim().held
