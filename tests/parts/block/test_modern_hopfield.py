import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import init
from archwright.parts.block import modern_hopfield as hopfield


def net(*shapes, **hp):
    g = ops.edit()
    names = [g.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    return rough(init(g.finish(hopfield.build(g, *names, **hp))), seed=1)


def heads(t, n):
    return t.unflatten(-1, (n, -1)).transpose(1, 2)


def reference(w, x, stored, n, steps, beta):
    """Head by head, with norms."""
    x = F.layer_norm(x, x.shape[-1:], w["norm.weight"], w["norm.bias"])
    stored = F.layer_norm(stored, stored.shape[-1:], w["norm_stored.weight"], w["norm_stored.bias"])
    xi, k, v = [
        heads(F.linear(t, w[f"{m}.weight"]), n) for t, m in ((x, "states"), (stored, "keys"), (stored, "values"))
    ]
    for _ in range(steps - 1):
        xi = (beta * xi @ k.transpose(-1, -2)).softmax(-1) @ k
    y = (beta * xi @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.linear(y.transpose(1, 2).flatten(2), w["out.weight"], w["out.bias"])


@pytest.mark.parametrize("steps", [1, 3])
def test_association_is_the_papers_formula(steps):
    made = net((None, 4, 8), (None, 6, 10), heads=2, width=3, steps=steps, beta=0.8)
    x, stored = torch.randn(3, 4, 8), torch.randn(3, 6, 10)
    expected = reference(made.weights, x, stored, 2, steps, 0.8)
    torch.testing.assert_close(outputs(made, (x, stored))[0], expected, rtol=1e-5, atol=1e-5)


def test_one_update_is_attention():
    made, x = net((None, 5, 8), heads=2, norm=False), torch.randn(3, 5, 8)
    q, k, v = [heads(F.linear(x, made.weights[f"{name}.weight"]), 2) for name in ("states", "keys", "values")]
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected = F.linear(y, made.weights["out.weight"], made.weights["out.bias"])
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-6)


def test_pooling_gives_one_row_for_each_learned_state_whatever_the_order_of_the_stored():
    made, x = net((None, 9, 6), form="pooling", queries=2, heads=3, out=5), torch.randn(3, 9, 6)
    found = outputs(made, (x,))[0]
    assert found.shape == (3, 2, 5)
    torch.testing.assert_close(outputs(made, (x[:, torch.randperm(9)],))[0], found, rtol=1e-5, atol=1e-6)


def test_lookup_reads_learned_values():
    made, x = net((None, 4, 6), form="lookup", memories=7, norm=False), torch.randn(3, 4, 6)
    w = made.weights
    like = F.linear(x, w["states.weight"]) @ w["keys"][0].T / 6**0.5
    expected = F.linear(like.softmax(-1) @ w["values"][0], w["out.weight"], w["out.bias"])
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.1, 1.0, 8.0])
def test_the_energy_never_rises(beta):
    patterns, state = torch.randn(20, 6).double(), 3 * torch.randn(50, 6).double()
    before = hopfield.energy(state, patterns, beta)
    for _ in range(6):
        state = hopfield.update(state, patterns, beta)
        after = hopfield.energy(state, patterns, beta)
        assert (after <= before + 1e-9).all()
        before = after
    assert (before >= -1e-9).all()


def test_well_separated_patterns_come_back_in_one_step_and_small_beta_averages_all():
    patterns = 8 * torch.eye(6)
    torch.testing.assert_close(hopfield.update(patterns + 0.3 * torch.randn(6, 6), patterns, 1.0), patterns)
    torch.testing.assert_close(hopfield.update(patterns, patterns, 1e-6)[0], patterns.mean(0), rtol=1e-3, atol=1e-3)


def test_patterns_averaged_are_counted():
    x = torch.randn(2, 5, 8)
    for beta, expected in ((1e-6, 5), (1e6, 1)):
        counts = hopfield.averaged(net((None, 5, 8), heads=2, beta=beta), (x,))
        assert [count.tolist() for count in counts.values()] == [[expected, expected]]


def test_what_it_refuses():
    with pytest.raises(ArchwrightError, match="expected one of"):
        net((None, 5, 8), form="tree")
    with pytest.raises(ArchwrightError, match="at least one step"):
        net((None, 5, 8), steps=0)
    with pytest.raises(ArchwrightError, match="association only"):
        net((None, 5, 8), (None, 5, 8), form="lookup")
    with pytest.raises(ArchwrightError, match="width"):
        net((None, 5, 8), heads=3)


def test_claim_holds():
    assert hopfield.claim().held
