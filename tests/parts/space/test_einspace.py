import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core import registry
from archwright.core.choose import Options, Picker, at_random
from archwright.core.space import Space, Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.net.build import build
from archwright.net.net import Net, init

module = registry.module(registry.find("space/einspace"))


def space(shape, widths=(4, 8, 16), **hp):
    return Space("einspace", partial(module.draw, widths=widths, **hp), Spec((shape,), 5))


def op(name):
    return ("computation", name)


def chain(*trees):
    first, *rest = trees
    return ("sequential", first, chain(*rest)) if rest else first


def conv(kernel, out, stride=1):
    return ("routing", f"im2col.{kernel}.{stride}.{kernel // 2}", op(f"linear.{out}"), "col2im")


def residual(tree):
    return ("branching", "clone2", tree, op("identity"), "add")


def drawn(tree, shape, seed=0, **hp):
    """A network of a derivation with random statistics in its norms, and its weights."""
    graph = space(shape, **hp).draw(module.write(tree))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.5 + torch.rand(w.shape, generator=generator) if ".norm." in name and w.is_floating_point() else w
        for name, w in init(graph, seed).weights.items()
    }
    return build(Net(graph, weights)).eval(), weights


def norm(x, w, at):
    return F.batch_norm(x, w[f"{at}.running_mean"], w[f"{at}.running_var"], w[f"{at}.weight"], w[f"{at}.bias"])


def test_a_resnet_block_is_a_derivation():
    """conv 3x3, norm, activation, conv 3x3, norm, plus the input, activation: as plain torch computes it."""
    block = chain(conv(3, 8), op("norm"), op("leaky_relu"), conv(3, 8), op("norm"))
    net, w = drawn(chain(residual(block), op("leaky_relu")), (None, 8, 6, 6))
    x = torch.randn(2, 8, 6, 6)

    def convolve(x, at):
        return F.conv2d(x, w[f"{at}.inner.linear.weight"].reshape(8, 8, 3, 3), w[f"{at}.inner.linear.bias"], padding=1)

    at = "net.first.left"
    y = F.leaky_relu(norm(convolve(x, f"{at}.first"), w, f"{at}.second.first.norm"))
    y = norm(convolve(y, f"{at}.second.second.second.first"), w, f"{at}.second.second.second.second.norm")
    y = F.leaky_relu(x + y).mean((2, 3)) @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-5)


def test_a_vit_with_attention_is_a_derivation():
    """Patches, positions, attention of four heads with a skip, a feed-forward layer with a skip."""
    linear = op("linear.8")
    scores = ("branching", "clone2", linear, ("routing", "identity", linear, "permute.21"), "scaled_dot")
    head = ("branching", "clone2", chain(scores, op("softmax")), linear, "dot")
    heads = chain(op("norm"), ("branching", "clone4", head, "cat.2"), op("linear.16"))
    feed = chain(op("norm"), op("linear.8"), op("leaky_relu"), op("linear.16"))
    tree = (
        "routing",
        "im2col.4.4.0",
        chain(op("linear.16"), op("position"), residual(heads), residual(feed)),
        "identity",
    )
    net, w = drawn(tree, (None, 3, 8, 8), depth=12)
    x = torch.randn(2, 3, 8, 8)

    def linear_(x, at):
        return x @ w[f"{at}.linear.weight"].T + w[f"{at}.linear.bias"]

    def normal(x, at):
        return F.layer_norm(x, x.shape[-1:], w[f"{at}.norm.weight"], w[f"{at}.norm.bias"])

    z = x.reshape(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 4, 48)
    z = linear_(z, "net.inner.first") + w["net.inner.second.first.position"]
    at = "net.inner.second.second.first.left"
    y, parts = normal(z, f"{at}.first"), []
    for i in range(4):
        one = f"{at}.second.first.branch{i}"
        q, k = linear_(y, f"{one}.left.first.left"), linear_(y, f"{one}.left.first.right.inner")
        share = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(8), -1)
        parts.append(share @ linear_(y, f"{one}.right"))
    z = z + linear_(torch.cat(parts, 2), f"{at}.second.second")
    at = "net.inner.second.second.second.left"
    y = F.leaky_relu(linear_(normal(z, f"{at}.first"), f"{at}.second.first"))
    z = z + linear_(y, f"{at}.second.second.second")
    torch.testing.assert_close(net(x), z.mean(1) @ w["head.weight"].T + w["head.bias"], rtol=1e-4, atol=1e-5)


def test_traces_and_derivations_go_both_ways():
    where, rng = space((None, 3, 8, 8), depth=5, limit=4096), np.random.default_rng(0)
    for _ in range(30):
        trace = where.random(rng)
        assert module.write(module.read(trace)) == trace


def test_a_mutation_changes_one_subtree():
    where, rng = space((None, 6, 8), depth=5, limit=4096), np.random.default_rng(1)
    for _ in range(20):
        trace = where.random(rng)
        other = where.mutate(trace, rng)
        before = {k: v for k, v in trace.items() if other.get(k) != v}
        root = min(before, key=len)
        assert module.modules(other) >= 1 and root.startswith("net")


def test_every_branch_of_eight_has_weights_of_its_own():
    tree = ("branching", "clone8", op("linear.4"), "add")
    graph = space((None, 3, 6)).draw(module.write(tree))
    assert sum(name.endswith("linear.weight") for name in ops.params(graph)) == 8


def test_branches_that_do_not_fit_are_stitched():
    image = ("branching", "clone2", op("identity"), ("routing", "im2col.3.2.1", op("linear.16"), "identity"), "add")
    net, _ = drawn(image, (None, 3, 8, 8))
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    matrix = ("branching", "clone2", ("routing", "im2col.1.1.0", op("identity"), "identity"), op("norm"), "dot")
    with pytest.raises(ChoiceError, match="join"):  # [64, 3] and [64, 3] after stitching: nothing to multiply
        drawn(matrix, (None, 3, 8, 8))
    net, _ = drawn((*matrix[:-1], "add"), (None, 3, 8, 8))
    assert net(torch.randn(3, 3, 8, 8)).shape == (3, 5)


def test_no_module_has_more_than_one_below_it_on_average():
    """For every module that a draw meets: the sum over its kinds of probability times modules below is under 1."""
    found = []

    class Watching(Picker):
        def one_of(self, name, options, weights=()):
            if "computation" in options and len(options) == 4:
                self.last = dict(zip(options, weights, strict=True))
            if name.endswith(".split") and name.count("."):
                two = np.mean([way[5] == "2" for way in options])
                p = 1 - self.parent[name[: -len(".split")]]["computation"] if name[:-6] in self.parent else None
                if p is not None:
                    found.append(p / 3 * (2 + (1 + two) + 1))
            value = super().one_of(name, options, weights)
            if value == "branching" and len(options) == 4:
                self.parent[name] = self.last
            return value

    rng = np.random.default_rng(0)
    for shape in ((None, 3, 8, 8), (None, 5, 7), (None, 2, 2)):
        for _ in range(25):
            picker = Watching(at_random(rng))
            picker.parent = {}
            module.draw(picker, Spec((shape,), 3), widths=(4,), limit=2048, depth=6)
    assert len(found) > 50
    assert max(found) < 0.983


def test_limits_hold():
    where, rng = space((None, 3, 8, 8), widths=(64,), limit=1000, depth=5), np.random.default_rng(0)
    for _ in range(30):
        graph = where.draw(where.random(rng))
        assert max(t.numel for t in ops.infer(graph, 1).values()) <= 1000


@pytest.mark.parametrize(
    "tree",
    [("parallel", op("norm")), ("sequential", op("norm")), ("computation",), ("branching", "clone2", op("norm"))],
)
def test_what_is_no_derivation_is_an_error(tree):
    with pytest.raises(ChoiceError, match="no module"):
        module.write(tree)


def test_errors():
    with pytest.raises(TypeMismatch, match="expected"):
        space((None, 3)).random(np.random.default_rng(0))
    with pytest.raises(TypeMismatch, match="at most 100"):
        space((None, 3, 64), limit=100).random(np.random.default_rng(0))
    with pytest.raises(ChoiceError, match="depth 0"):
        space((None, 3, 6), depth=0).random(np.random.default_rng(0))
    assert Options("one_of", ("a",)).one_in("a") == 1
