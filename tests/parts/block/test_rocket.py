import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs
from archwright.errors import ArchwrightError
from archwright.net.net import init
from archwright.parts.block import rocket as part


def net(shape=(None, 3, 24), seed=1, **hp):
    g = ops.edit()
    return init(g.finish(part.build(g, g.input("x", shape), **hp)), seed)


def kinds(made):
    return {name.removesuffix(".kernels"): w for name, w in made.weights.items() if name.endswith(".kernels")}


def test_features_are_greatest_value_and_share_of_positive_ones():
    made, x = net(kernels=12, channels=3), torch.randn(5, 3, 24)
    found, expected = outputs(made, (x,))[0], []
    for place, w in kinds(made).items():
        taps, dilation = (int("".join(filter(str.isdigit, word))) for word in place.split("."))
        z = F.conv1d(
            x, w - w.mean(2, keepdim=True), made.weights[f"{place}.bias"], dilation=dilation,
            padding=dilation * (taps - 1) // 2,
        )  # fmt: skip
        expected += [z.amax(2), (z > 0).float().mean(2)]
    torch.testing.assert_close(found * (1 + 1e-5) ** 0.5, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_nothing_is_trained_and_all_is_stored():
    made = net(kernels=40)
    assert made.cost().params == 0
    assert made.cost().buffer_bytes > 40 * 3 * 7 * 4


def test_kernels_fit_into_the_series_and_are_as_many_as_asked():
    made = net((None, 2, 100), kernels=50)
    sizes = {place: w.shape for place, w in kinds(made).items()}
    assert sum(shape[0] for shape in sizes.values()) == 50
    reach = [(shape[2] - 1) * int(place.rpartition("dilation")[2]) for place, shape in sizes.items()]
    assert max(reach) < 100 <= 2 * max(reach)
    assert outputs(net((None, 1, 4), kernels=3), (torch.randn(2, 1, 4),))[0].shape == (2, 6)


def test_every_kernel_reads_as_many_channels_as_asked():
    made, x = net((None, 9, 8), kernels=6, channels=2), torch.randn(1, 9, 8)
    base = outputs(made, (x,))[0]
    reads = torch.zeros(12, dtype=torch.int)
    for channel in range(9):
        changed = x.clone()
        changed[:, channel] += 3 * torch.randn(8)
        reads += (outputs(made, (changed,))[0] != base)[0].int()
    assert reads.max() == 2


def test_a_constant_series_gives_inner_convolutions_of_zero():
    w = kinds(net((None, 3, 64), kernels=12))["taps7.dilation1"]
    z = F.conv1d(torch.full((1, 3, 64), 5.0), w - w.mean(2, keepdim=True))
    torch.testing.assert_close(z, torch.zeros_like(z), atol=1e-4, rtol=0)


def test_no_kernels_are_refused():
    with pytest.raises(ArchwrightError, match="kernels=0"):
        net(kernels=0)
