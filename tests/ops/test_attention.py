"""attention against F.scaled_dot_product_attention, multihead_attention against torch.nn.MultiheadAttention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from archwright import ops
from archwright.errors import TypeMismatch
from archwright.ir import Attrs, Type
from tests.ops.harness import check

some = settings(max_examples=15, deadline=None, derandomize=True)
sizes, flags = st.integers(1, 5), st.booleans()


def numbers(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask_of(kind: str, *shape: int, seen: bool) -> Tensor:
    """A random mask; a bool one has `seen` where something may be seen. Row 0 of a bool mask hides everything."""
    x = numbers(*shape, seed=5)
    if kind == "float":
        return x
    mask = x > 0
    if shape[-2] > 1:
        mask[..., 0, :] = False
    return mask if seen else ~mask


# -------------------------------------------------------------------------------------------------------- attention
@some
@given(st.lists(sizes, max_size=2), sizes, sizes, sizes, sizes, st.sampled_from(["none", "causal", "bool", "float"]),
       st.sampled_from([None, 0.3]), flags, flags)  # fmt: skip
def test_attention(lead, length, source, inside, outside, masking, scale, same, train):
    outside = inside if same else outside
    shapes = (length, inside), (source, inside), (source, outside)
    x = [numbers(*lead, *last, seed=seed) for seed, last in enumerate(shapes)]
    if masking in ("bool", "float"):
        x.append(mask_of(masking, length, source, seen=True))
    attrs = {"causal": masking == "causal", "scale": scale, "dropout": 0.4 if train else 0.0}

    def reference(q, k, v, mask=None):
        p = attrs["dropout"] if train else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, p, attrs["causal"], scale=scale)

    check("attention", attrs, x, reference=reference, batch_dim=[0 if lead else None] * 3 + [None] * (len(x) - 3),
          train=train, rtol=1e-4)  # fmt: skip


@some
@given(sizes, st.integers(1, 3), st.integers(1, 3), sizes, sizes, sizes, sizes, flags, flags)
def test_grouped_attention(batch, heads, each, length, source, inside, outside, causal, same):
    outside = inside if same else outside
    x = [numbers(batch, heads * each, length, inside), numbers(batch, heads, source, inside, seed=4),
         numbers(batch, heads, source, outside, seed=5)]  # fmt: skip
    check("attention", {"grouped": True, "causal": causal}, x, rtol=1e-4,
          reference=lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal, enable_gqa=True))  # fmt: skip


def test_attention_broadcasts():
    x = [numbers(2, 3, 4, 5), numbers(1, 3, 6, 5), numbers(3, 6, 5), mask_of("bool", 2, 1, 1, 6, seen=True)]
    check("attention", {}, x, reference=F.scaled_dot_product_attention, batch_dim=[0, None, None, 0], keeps=False)


@pytest.mark.parametrize("masking", ["none", "bool", "float"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("outside", [8, 12])
def test_what_autograd_keeps(masking, dropout, outside):
    x = [numbers(2, 4, 20, 8), numbers(2, 4, 30, 8), numbers(2, 4, 30, outside)]
    if masking != "none":
        x.append(mask_of(masking, 2, 1, 20, 30, seen=True))
    check("attention", {"dropout": dropout}, x)


# -------------------------------------------------------------------------------------------------------- multihead
def build(attrs: dict, width: int) -> nn.MultiheadAttention:
    """The torch module of the same settings."""
    return nn.MultiheadAttention(
        width, attrs["heads"], attrs.get("dropout", 0.0), attrs.get("bias", True), attrs.get("bias_kv", False),
        attrs.get("zero_attn", False), attrs.get("key_dim"), attrs.get("value_dim"), attrs.get("batch_first", False),
    )  # fmt: skip


class Heads(nn.Module):
    """torch.nn.MultiheadAttention called as the attributes say; its weights keep their names."""

    def __init__(self, attrs: dict, width: int) -> None:
        super().__init__()
        made = build(attrs, width)
        self._modules, self._parameters, self.made, self.attrs = made._modules, made._parameters, [made], attrs

    def forward(self, q, k, v, *masks):
        masks = list(masks)
        padding = masks.pop(0) if self.attrs.get("padding_mask") else None
        mask = masks.pop(0) if self.attrs.get("mask") else None
        long = 1 if self.attrs.get("batch_first") else 0
        if self.attrs.get("causal"):
            mask = torch.ones(q.shape[long], k.shape[long], dtype=torch.bool).triu(1)
        made = self.made[0].train(self.training)
        weights = self.attrs.get("weights", True)
        y, seen = made(q, k, v, padding, need_weights=weights, attn_mask=mask,
                       average_attn_weights=self.attrs.get("average", True))  # fmt: skip
        return (y, seen) if weights else y


OPTIONS = ("bias", "batch_first", "bias_kv", "zero_attn", "weights", "average")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 3), sizes, sizes, st.integers(1, 3), st.sampled_from([None, 5]),
       st.fixed_dictionaries(dict.fromkeys(OPTIONS, flags)),
       st.sampled_from(["none", "causal", "bool", "float", "each"]), st.sampled_from(["none", "bool", "float"]),
       flags)  # fmt: skip
def test_multihead_attention(heads, each, length, source, batch, key_dim, options, masking, padding, train):
    width = heads * each
    attrs = {"heads": heads, **options, "dropout": 0.3 if train else 0.0, "causal": masking == "causal"}
    if key_dim:
        attrs |= {"key_dim": key_dim, "value_dim": key_dim + 1}
    kd, vd = (key_dim, key_dim + 1) if key_dim else (width, width)
    x = [numbers(length, batch, width), numbers(source, batch, kd, seed=4), numbers(source, batch, vd, seed=5)]
    if options["batch_first"]:
        x = [t.transpose(0, 1).contiguous() for t in x]
    dims = [0 if options["batch_first"] else 1] * 3
    if padding != "none":
        attrs["padding_mask"] = True
        mask = mask_of(padding, 1, source, seen=False).expand(batch, source).clone()
        if padding == "bool":
            mask[:, 0] = False  # torch gives NaN where nothing may be seen
        x.append(mask)
        dims.append(0)
    if masking in ("bool", "float", "each"):
        attrs["mask"] = True
        shape = (batch * heads, length, source) if masking == "each" else (length, source)
        mask = mask_of("float" if masking == "float" else "bool", *shape, seen=False)
        if masking != "float":
            mask[..., 0] = False
        x.append(mask)
        dims.append(None)
    if masking == "each":  # the batch stands in a product with the heads: no input of a graph can say that
        dims = [None] * len(dims)
    # torch's counter does not see its fused attention on the CPU, which is used where no weights come out
    check("multihead_attention", attrs, x, reference=Heads(attrs, width), batch_dim=dims, train=train, rtol=1e-4,
          atol=1e-5, flops=attrs["weights"])  # fmt: skip


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_self_attention_of_one_tensor(batch_first, weights):
    """The packed projection, with the same random numbers as torch draws; the attention is the module's own."""
    module = nn.MultiheadAttention(12, 3, dropout=0.5, batch_first=batch_first).train()
    x = numbers(4, 5, 12)
    attrs = ops.get("multihead_attention").normal(
        {"heads": 3, "dropout": 0.5, "batch_first": batch_first, "weights": weights}
    )
    known = ops.facts("multihead_attention", attrs, (Type((4, 5, 12)),) * 3)
    torch.manual_seed(1)
    wanted = module(x, x, x, need_weights=weights)
    torch.manual_seed(1)
    got = known.op.run(known.a, [x, x, x], dict(module.named_parameters()), True)
    for a, b in zip(got if weights else (got,), wanted, strict=False):
        torch.testing.assert_close(a, b)


@some
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), sizes, sizes, flags, flags, flags, flags)
def test_pruned_heads(heads, head, value, inside, outside, separate, weights, extra, causal):
    """Widths that torch's module cannot have: the numbers are those of the formula, and nothing else changes."""
    attrs = {"heads": heads, "head_dim": head, "value_head_dim": value, "size": outside, "scale": 0.4, "causal": causal,
             "batch_first": True, "weights": weights, "average": False, "bias_kv": extra,
             "zero_attn": extra}  # fmt: skip
    widths = (inside, inside + 1, inside + 2) if separate else (inside,) * 3
    if separate:
        attrs |= {"key_dim": widths[1], "value_dim": widths[2]}
    x = [numbers(2, n, w, seed=n) for n, w in zip((3, 4, 4), widths, strict=True)]

    def reference(q, k, v, **w):
        if not separate:
            parts = w["in_proj_weight"].split([heads * head, heads * head, heads * value])
            w |= dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), parts, strict=True))
        bq, bk, bv = w["in_proj_bias"].split([heads * head, heads * head, heads * value])
        q, k, v = q @ w["q_proj_weight"].T + bq, k @ w["k_proj_weight"].T + bk, v @ w["v_proj_weight"].T + bv
        if extra:
            k, v = (torch.cat([t, w[n].expand(2, 1, -1), torch.zeros_like(t[:, :1])], 1)
                    for t, n in ((k, "bias_k"), (v, "bias_v")))  # fmt: skip
        q, k, v = (t.reshape(2, t.shape[1], heads, -1) for t in (q, k, v))
        scores = torch.einsum("nlhd,nshd->nhls", q, k) * 0.4
        if causal:
            hidden = torch.ones(3, 4, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(F.pad(hidden, (0, 2 if extra else 0)), float("-inf"))
        seen = scores.softmax(-1)
        y = torch.einsum("nhls,nshd->nlhd", seen, v).flatten(2)
        y = y @ w["out_proj.weight"].T + w["out_proj.bias"]
        return (y, seen) if weights else y

    check("multihead_attention", attrs, x, reference=reference, rtol=1e-4, atol=1e-5, flops=weights)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("masking", ["none", "causal", "bool", "float", "padding", "both", "each"])
def test_what_autograd_keeps_in_multihead_attention(weights, dropout, masking):
    x = [numbers(20, 3, 24), numbers(30, 3, 24), numbers(30, 3, 24)]
    attrs = {"heads": 4, "weights": weights, "dropout": dropout, "causal": masking == "causal",
             "padding_mask": masking in ("padding", "both"),
             "mask": masking in ("bool", "float", "both", "each")}  # fmt: skip
    if attrs["padding_mask"]:
        x.append(numbers(3, 30) > 1)
    if attrs["mask"]:
        mask = numbers(12, 20, 30) if masking == "each" else numbers(20, 30)
        x.append(mask if masking == "float" else mask > 1)
    check("multihead_attention", attrs, x, batch_dim=None, flops=weights, axes=False, onnx=False, source=False,
          vmap=False)  # fmt: skip


def test_errors_say_what_was_got():
    with pytest.raises(TypeMismatch, match="equal last dimensions"):
        ops.facts("attention", Attrs(), (Type((2, 3, 4)), Type((2, 3, 5)), Type((2, 3, 5))))
    with pytest.raises(TypeMismatch, match="causal mask into the mask"):
        ops.facts("attention", Attrs(causal=True), (Type((2, 3, 4)),) * 3 + (Type((3, 3), "bool"),))
    with pytest.raises(TypeMismatch, match="broadcasts to"):
        ops.facts("attention", Attrs(), (Type((2, 3, 4)),) * 3 + (Type((3, 5), "bool"),))
    with pytest.raises(TypeMismatch, match="multiple of heads=3"):
        ops.facts("multihead_attention", Attrs(heads=3), (Type((2, 3, 4)),) * 3)
    with pytest.raises(TypeMismatch, match="set key_dim=6"):
        ops.facts("multihead_attention", Attrs(heads=2), (Type((2, 3, 4)),) + (Type((2, 3, 6)),) * 2)
    with pytest.raises(TypeMismatch, match="expected 4"):
        ops.facts("multihead_attention", Attrs(heads=2, mask=True), (Type((2, 3, 4)),) * 3)
