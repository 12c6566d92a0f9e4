"""`capture`: every fixture captured and proven, names kept, gradients the same; and the special cases one by one."""

import gc
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import archwright as aw
from archwright.errors import CaptureError, ConsentError
from archwright.exchange.capture import CaptureWarning, trace
from tests.fixtures.models import NAMES, make
from tests.fixtures.models.refused import MODELS as REFUSED


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def captured(module, example, *args, **kwargs):
    """A net, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        return aw.capture(module, example, *args, **kwargs)


def ops_of(net):
    return [node.op for node in net.graph.nodes if node.op != "input"]


def state_names(module):
    named = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return {name for pairs in named for name, _ in pairs}


def same(built, module, *args, seed=3, atol=1e-5):
    """Both modes agree on these arguments with the same seed."""
    for train in (False, True):
        built.train(train)
        module.train(train)
        torch.manual_seed(seed)
        wanted = [value for value in pytree.tree_leaves(module(*args)) if isinstance(value, torch.Tensor)]
        torch.manual_seed(seed)
        found = pytree.tree_leaves(built(*args))
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- fixtures
@pytest.mark.parametrize("name", NAMES)
def test_fixture(name, tmp_path):
    module, example = make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)
        found = trace(module, example)  # raises unless proven in both modes and at another batch size
    net = found.net
    assert found.train and found.batch
    assert net.opaque_share == 0
    ours = {name for name in net.weights if not name.startswith("constants.")}
    assert ours <= state_names(module)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained - set(net.weights) <= _unused(module, example)
    loaded = aw.load(net.save(tmp_path))
    assert loaded.graph == net.graph
    assert loaded.weights.keys() == net.weights.keys()
    gc.collect()


def _unused(module, example):
    """Parameters that no output depends on in train mode."""
    module.train()
    outputs = [v for v in pytree.tree_leaves(module(*example)) if isinstance(v, torch.Tensor) and v.requires_grad]
    total = sum(value.abs().sum() for value in outputs)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name for name, grad in zip(named, grads, strict=True) if grad is None}


GRADIENTS = ("vit", "resnet20", "bigru_attention", "vae", "torch_decoder", "spectral_discriminator")


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_the_module(name):
    module, example = make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)
        built = aw.build(aw.capture(module, example)).train()
    module.train()
    grads = []
    for target in (module, built):
        torch.manual_seed(1)
        outputs = [v for v in pytree.tree_leaves(target(*example)) if v.is_floating_point()]
        sum((value * (i + 1)).sum() for i, value in enumerate(outputs)).backward()
        grads.append({key: p.grad for key, p in target.named_parameters() if p.grad is not None})
    assert grads[1].keys() == grads[0].keys()
    for key, grad in grads[1].items():
        torch.testing.assert_close(grad, grads[0][key], atol=2e-4, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------- weights, names
class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.again = self.fc  # a second name

    def forward(self, x):
        return self.head(self.again(torch.relu(self.fc(self.fc(x)))))


def test_a_module_called_thrice_is_one_slot():
    net = captured(Twice(), torch.randn(3, 4))
    slots = [node.slot for node in net.graph.nodes if node.op == "linear"]
    assert slots == ["fc", "fc", "fc", "head"]
    assert set(net.weights) == {"fc.weight", "fc.bias", "head.weight", "head.bias"}
    assert [node.name for node in net.graph.nodes if node.op == "linear"] == ["fc", "fc_1", "fc_2", "head"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


def test_tied_weights_are_one_weight():
    module = Tied()
    net = captured(module, torch.randint(9, (3, 5)))
    assert set(net.weights) == {"embed.weight"}
    assert sorted(ops_of(net)) == ["embedding", "linear", "param"]
    same(aw.build(net), module, torch.randint(9, (4, 5)))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(5, 3, 3, 3)), nn.Parameter(torch.randn(5))
        self.register_buffer("scale", torch.rand(5, 1, 1))
        self.offset = torch.randn(5, 1, 1)  # neither parameter nor buffer

    def forward(self, x):
        return F.conv2d(x, self.kernel, self.shift) * self.scale + self.offset


def test_weights_without_a_module_keep_their_names():
    module = Functional()
    net = captured(module, torch.randn(2, 3, 5, 5))
    assert set(net.weights) == {"kernel", "shift", "scale", "offset"}
    same(aw.build(net), module, torch.randn(3, 3, 5, 5))


def test_weights_are_copies_and_the_module_stays_as_it_is():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x, state = torch.randn(1, 3), torch.get_rng_state()
    net = captured(module, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training and not module[2].training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert net.weights[name].data_ptr() != tensor.data_ptr()


# --------------------------------------------------------------------------------------------------------- both modes
def test_running_statistics_are_trained_alike():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(inplace=True))
    built = aw.build(captured(module, torch.randn(2, 3, 6, 6)))
    x = torch.randn(5, 3, 6, 6)
    for target in (module.train(), built.train()):
        target(x)
        target(x * 2)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(dict(built.named_buffers())[name], buffer)


class ByMode(nn.Module):
    """Noise in training, a second head in evaluation."""

    def __init__(self):
        super().__init__()
        self.fc, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        y = y + torch.randn_like(y) if self.training else y * 2
        y = torch.relu(y)
        return y if self.training else self.other(y)


def test_what_differs_by_mode_meets_in_one_node():
    module = ByMode()
    net = captured(module, torch.randn(3, 4))
    assert ops_of(net).count("by_mode") == 2
    built = aw.build(net)
    same(built, module, torch.randn(5, 4))
    built.eval()
    torch.manual_seed(0)
    built(torch.randn(5, 4))
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.randn(5, 4)
    assert torch.equal(after, torch.rand(1))  # the noise of train mode was not drawn


class DropPath(nn.Module):
    def __init__(self, p, old):
        super().__init__()
        self.fc, self.p, self.old = nn.Linear(4, 4), p, old

    def forward(self, x):
        y = self.fc(x)
        if self.training and self.p > 0:
            keep, shape = 1 - self.p, (y.shape[0],) + (1,) * (y.dim() - 1)
            if self.old:
                y = y.div(keep) * (keep + torch.rand(shape)).floor_()
            else:
                y = y * y.new_empty(shape).bernoulli_(keep).div_(keep)
        return x + y


@pytest.mark.parametrize("old", [False, True])
def test_drop_path_is_stochastic_depth(old):
    module = DropPath(0.3, old)
    net = captured(module, torch.randn(2, 3, 4))
    assert ops_of(net) == ["linear", "stochastic_depth", "add"]
    (node,) = [node for node in net.graph.nodes if node.op == "stochastic_depth"]
    assert node.attrs["p"] == 0.3
    same(aw.build(net), module, torch.randn(8, 3, 4))


class Counter(nn.Module):
    """Keeps a moving average of its inputs in a buffer that no output needs, and one that it does need."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.average.lerp_(x.mean(0), 0.1)
                self.steps.add_(1)
        return self.fc(x) + self.steps


def test_buffers_that_training_changes():
    module = Counter()
    built = aw.build(captured(module, torch.randn(3, 4)))
    x = torch.randn(6, 4)
    for target in (module, built):
        target.train()
        target(x).sum().backward()
        target(x * 3)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(dict(built.named_buffers())[name], buffer)
    same(built, module, x)


class FrozenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.norm(self.conv(x))


def test_a_norm_kept_in_eval_mode():
    module = FrozenNorm()
    built = aw.build(captured(module, torch.randn(2, 3, 4, 4)))
    same(built, module, torch.randn(3, 3, 4, 4))


class MoreInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.main, self.aux = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return (self.main(x), self.aux(x)) if self.training else self.main(x)


def test_a_second_output_in_training_is_left_out_and_told():
    with pytest.warns(CaptureWarning, match="2 tensors in train mode and 1 in eval mode"):
        net = aw.capture(MoreInTraining(), torch.randn(2, 4))
    assert set(net.weights) == {"body.weight", "body.bias", "main.weight", "main.bias"}


class LayerDrop(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.fc, self.p = nn.Linear(4, 4), p

    def forward(self, x):
        if self.training and torch.rand([]) < self.p:
            return x
        return self.fc(x)


def test_what_training_decides_at_random():
    with pytest.warns(CaptureWarning, match=r"only right in eval mode.*test_capture\.py"):
        aw.capture(LayerDrop(0.5), torch.randn(2, 4))
    with pytest.raises(CaptureError, match="train mode"):
        aw.capture(LayerDrop(0.5), torch.randn(2, 4), train=True)
    captured(LayerDrop(0.5), torch.randn(2, 4), train=False)
    captured(LayerDrop(0.0), torch.randn(2, 4), train=False)


# -------------------------------------------------------------------------------------------------- arguments, results
class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None, *, scale=1.0, flip=False):
        y = self.fc(x) * scale
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return {"y": y.flip(-1) if flip else y, "none": None, "more": (x, [y.sum(-1)])}


def test_keywords_in_and_structures_out():
    module = Named()
    x, mask = torch.randn(3, 4), torch.rand(3, 4) > 0.5
    net = captured(module, x, {"mask": mask, "scale": 2.0, "flip": True})
    assert [node.name for node in net.graph.inputs] == ["x", "mask"]
    built = aw.build(net).eval()
    wanted = module.eval()(x, mask, scale=2.0, flip=True)
    for a, b in zip(built(x, mask), [v for v in pytree.tree_leaves(wanted) if v is not None], strict=True):
        torch.testing.assert_close(a, b)


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x).view(3, 2, 2)


def test_a_module_that_takes_one_batch_size_only():
    with pytest.warns(CaptureWarning, match="only takes a batch of 3"):
        net = aw.capture(Fixed(), torch.randn(3, 4))
    assert net.graph.inputs[0].attrs["shape"] == (3, 4)


def test_the_batch_may_be_another_dimension():
    module = nn.LSTM(4, 5)  # time first
    net = captured(module, torch.randn(7, 3, 4), batch_dims={0: 1})
    assert net.graph.inputs[0].attrs["shape"] == (7, None, 4)
    same(aw.build(net), module, torch.randn(7, 5, 4))
    with pytest.raises(CaptureError, match="batch_dims"):
        aw.capture(module, torch.randn(7, 3, 4), batch_dims={0: 4})


class BatchSizes(nn.Module):
    """Everything that can be made of the batch size."""

    def forward(self, x):
        n, c = x.shape
        rows = torch.arange(n).unsqueeze(1) + torch.zeros(n, 1) + torch.ones(n, c).cumsum(0)
        grid = x.repeat(2, 1).reshape(2, n, c).transpose(0, 1) / n
        return rows + x, grid, x.new_full((n, 2), 0.5), torch.arange(2 * n).view(n, 2), x.sum() / x.shape[0]


def test_numbers_that_come_from_the_batch():
    module = BatchSizes()
    net = captured(module, torch.randn(1, 3))
    same(aw.build(net), module, torch.randn(7, 3))


# ------------------------------------------------------------------------------------------------------ writes, dtypes
class Writes(nn.Module):
    def forward(self, x):
        y = x * 2
        view = y[:, 1:3]
        view += 1
        y[:, 0] = 5.0
        y[:, -1].mul_(3)
        first, second = y.chunk(2, dim=1)
        second.relu_()
        z = torch.zeros(x.shape[0], 8)
        z[:, ::2] = y
        z[:, 1::2] = first.sum(1, keepdim=True)
        turned = z.view(-1, 2, 4).transpose(1, 2)
        turned[:, 0] = -1
        return y, z, view, F.dropout(y, 0.5, self.training).add_(1)


def test_writes_through_views():
    module = Writes()
    net = captured(module, torch.randn(2, 4))
    assert not any(op == "opaque" for op in ops_of(net))
    same(aw.build(net), module, torch.randn(5, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    module = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.Dropout(0.1)).to(dtype)
    ids = torch.randint(7, (3, 5))
    net = captured(module, ids)
    assert all(tensor.dtype == dtype for tensor in net.weights.values())
    out = aw.build(net).eval()(ids)
    assert out.dtype == dtype
    torch.testing.assert_close(out, module.eval()(ids))


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, 9, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=16).abs()


def test_complex_weights():
    net = captured(Spectrum(), torch.randn(2, 5, 16))
    assert net.weights["filter"].dtype == torch.complex64


# ----------------------------------------------------------------------------------------------------------- attention
class Attends(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, **options)

    def forward(self, x, hidden):
        return self.attention(x, x, x, key_padding_mask=hidden)[0]


def test_multihead_attention_is_one_node():
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[:, -1] = True
    module = Attends(batch_first=True)
    net = captured(module, (torch.randn(3, 5, 8), hidden))
    assert "multihead_attention" in ops_of(net)
    same(aw.build(net), module, torch.randn(3, 5, 8), hidden)


def test_multihead_attention_with_computed_weights():
    module = Attends(batch_first=True)
    nn.utils.parametrizations.weight_norm(module.attention, "in_proj_weight")
    net = captured(module, (torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)))
    assert "multihead_attention" not in ops_of(net)


# ------------------------------------------------------------------------------------------------------ what is known
class Flags(nn.Module):
    """Asks buffers for their numbers, and keeps sizes as tensors."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("started", torch.tensor([True]))
        self.register_buffer("stride", torch.tensor(2))
        self.register_buffer("kernel", torch.tensor(3))

    def forward(self, x):
        if not self.started:
            raise RuntimeError("never")
        missing = (torch.ceil(x.shape[-1] / self.stride) * self.stride).long() - x.shape[-1] + self.kernel
        dims = torch.arange(1, x.dim()).tolist()
        return F.pad(self.fc(x), (0, missing)).mean(dims) + self.fc.weight.data.sum()


def test_numbers_that_a_module_knows_beforehand():
    module = Flags()
    same(aw.build(captured(module, torch.randn(2, 3, 4))), module, torch.randn(5, 3, 4))


class FromTheEnd(nn.Module):
    def forward(self, x, ids):
        return x[:, [-2]], x[:, [0, -1]].sum(1), x[:, ids], x[:, :, [-1, 1]]


def test_indices_that_count_from_the_end():
    module, ids = FromTheEnd(), torch.tensor([-1, 2, 0, -4])
    same(aw.build(captured(module, (torch.randn(2, 4, 3), ids), batch_dims={0: 0})), module, torch.randn(5, 4, 3), ids)


class Edges(nn.Module):
    """A graph network that leaves loops out, and adds one for every node."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, edges):
        edges = edges[:, edges[0] != edges[1]]
        loops = torch.arange(x.shape[0])
        source, target = torch.cat([edges[0], loops]), torch.cat([edges[1], loops])
        degree = torch.zeros(x.shape[0]).index_add_(0, target, torch.ones(target.shape[0]))
        y = self.fc(x)[source] / degree[target].unsqueeze(1)
        return torch.zeros(x.shape[0], 3).index_add_(0, target, y)


def test_what_a_mask_picks_is_checked_at_every_run():
    module, x = Edges(), torch.randn(5, 4)
    edges = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 3, 4]])
    with pytest.warns(CaptureWarning, match="checks that: an error if a mask does not pick what it did"):
        net = aw.capture(module, (x, edges))
    assert net.opaque_share == 0
    built = aw.build(net)
    same(built, module, torch.randn(5, 4), edges)
    same(built, module, torch.randn(8, 4), torch.tensor([[7, 6, 5, 4, 0], [1, 2, 3, 4, 5]]))
    with pytest.raises(RuntimeError, match="a mask does not pick what it did when captured"):
        built(x, torch.tensor([[0, 0, 2, 3, 3], [0, 2, 3, 3, 4]]))


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(12), persistent=False)

    def forward(self, x):
        bands = torch.stft(x, 16, hop_length=4, win_length=12, window=self.window, return_complex=True).abs()
        blocks = x.as_strided((x.shape[0], 9, 8), (x.shape[1], 5, 1))
        return bands.log1p(), blocks * 2


def test_spectra_and_strides():
    module = Spectrogram()
    net = captured(module, torch.randn(2, 48))
    assert net.opaque_share == 0
    same(aw.build(net), module, torch.randn(3, 48))


# -------------------------------------------------------------------------------------------------------------- opaque
class Opaque(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(x) + x


def test_what_has_no_op_is_opaque_and_told(tmp_path):
    with pytest.warns(CaptureWarning, match="1 of 3 nodes are opaque: aten.linalg_matrix_exp"):
        net = aw.capture(Opaque(), torch.randn(2, 3, 3))
    assert net.opaque_share == 0.5
    net.save(tmp_path)
    with pytest.raises(ConsentError, match="matrix_exp"):
        aw.load(tmp_path)
    assert aw.load(tmp_path, allow_opaque=True).graph == net.graph


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"detected_mask"}))
def test_refusals_name_the_line(name):
    module, example = REFUSED[name]()
    with pytest.raises(CaptureError, match=r"refused\.py:\d+") as caught:
        aw.capture(module, example)
    line = int(re.search(r"refused\.py:(\d+)", str(caught.value)).group(1))
    start = type(module).forward.__code__.co_firstlineno
    assert start < line < start + 12


def test_a_mask_that_torch_looks_into_is_no_obstacle():
    module, example = REFUSED["detected_mask"]()
    captured(module, example)


def test_bad_arguments():
    with pytest.raises(CaptureError, match="expected a torch"):
        aw.capture(torch.relu, torch.randn(2))
    with pytest.raises(CaptureError, match="holds no tensor"):
        aw.capture(nn.ReLU(), ())
    with pytest.raises(CaptureError, match=r"itself fails on the example.*shapes"):
        aw.capture(nn.Linear(3, 2), torch.randn(2, 4))
    with pytest.raises(CaptureError, match="returns no tensor"):
        aw.capture(_Number(), torch.randn(2, 4))


class _Number(nn.Module):
    def forward(self, x):
        return x.shape[0]


class Impostor(nn.Module):
    """Computes something else while it is exported."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        if torch.compiler.is_exporting():
            x = x * 1.01
        return self.second(x)


def test_a_difference_is_found():
    with pytest.raises(CaptureError, match="does not compute what Impostor does in eval mode"):
        aw.capture(Impostor(), torch.randn(2, 4))


def test_the_first_node_that_differs_is_named(monkeypatch):
    from archwright.exchange.capturing import table

    monkeypatch.setitem(table.RULES, "relu", lambda c, call, a: c.emit("silu", a["self"]))
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(CaptureError, match=r"node '1' \(silu\) is the first that differs.* from aten.relu"):
        aw.capture(module, torch.randn(2, 4))
    aw.capture(module, torch.randn(2, 4), prove=False)


def test_a_parameter_that_is_held_still_is_a_buffer():
    module, example = make("dit_adaln")
    assert not module.pos_embed.requires_grad
    assert aw.capture(module, example).graph["pos_embed"].op == "buffer"
    assert aw.capture(module.requires_grad_(False), example).graph["pos_embed"].op == "param"  # all are: for inference
