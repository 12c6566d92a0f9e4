"""Attention: y = softmax(scale q k^T + mask) v, plain and with the projections of torch.nn.MultiheadAttention.

    attention            q [..., L, E], k [..., S, E], v [..., S, V] -> [..., L, V]
                         mask [..., L, S]: bool (True may be seen) or float (added). grouped: q has r times as many
                         heads (dimension -3) as k and v; head i sees the head i // r of k and v
    multihead_attention  q [L, N, E], k [S, N, K], v [S, N, V] (batch_first: N and L exchanged) -> [L, N, size], and the
                         weights [N, L, S'], or [N, heads, L, S'] if not averaged. padding mask [N, S] and mask [L, S]
                         or [N heads, L, S]: bool (True is hidden) or float (added)

A causal mask lets position l see the positions s <= l, counted from the start of both.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cat,
    Cost,
    Dim,
    Dims,
    Op,
    Param,
    Prod,
    Source,
    Types,
    broadcast,
    need_float,
    need_rank,
)


def _need_mask(t: Type, shape: tuple[int, ...], what: str) -> None:
    """Check that a mask broadcasts to a shape."""
    if t.dtype != "bool" and "float" not in t.dtype:
        raise TypeMismatch(f"{what} is {t}, expected bool or floating point")
    lead = len(shape) - len(t.shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(t.shape, shape[lead:], strict=True)):
        raise TypeMismatch(f"{what} is {t}, expected a shape that broadcasts to {list(shape)}")


# ------------------------------------------------------------------------------------------------------ onnx pieces
def _onnx_causal(o, q: str, k: str) -> str:
    """bool [L, S]: what may be seen. Sizes stand in dimension -2 of both."""
    zero, one = o.scalar(0, "int64"), o.scalar(1, "int64")
    rows, columns = (o.node("Range", [zero, o.squeeze(o.dim(x, -2), 0), one]) for x in (q, k))
    return o.node("LessOrEqual", [columns, o.unsqueeze(rows, 1)])


def _onnx_attend(o, q: str, k: str, v: str, rank: int, scale: float, dtype: str, bias: str | None, safe: bool):
    """(y, weights). `bias` is added to the scores; safe: where nothing may be seen the weights are 0, not NaN."""
    scores = o.node("MatMul", [o.node("Mul", [q, o.scalar(scale, dtype)]), o.swap(k, rank, -1, -2)])
    if bias is not None:
        scores = o.node("Add", [scores, bias])
    weights = o.node("Softmax", [scores], axis=-1)
    if bias is not None and safe:
        weights = o.node("Where", [o.node("IsNaN", [weights]), o.scalar(0.0, dtype), weights])
    return o.node("MatMul", [weights, v]), weights


def _onnx_bias(o, mask: str, t_dtype: str, dtype: str, hides: bool) -> str:
    """A mask as numbers to add: 0 where a bool mask lets see, minus infinity where it hides."""
    if t_dtype != "bool":
        return mask if t_dtype == dtype else o.cast(mask, dtype)
    seen, hidden = o.scalar(0.0, dtype), o.scalar("-inf", dtype)
    return o.node("Where", [mask, hidden, seen] if hides else [mask, seen, hidden])


# -------------------------------------------------------------------------------------------------------- attention
def _lead(a: A, x: Types) -> tuple[int, ...]:
    """The dimensions before the last two of the output."""
    cut = 3 if a["grouped"] else 2
    heads = x[0].shape[-3:-2] if a["grouped"] else ()
    return (*broadcast([Type(t.shape[: len(t.shape) - cut]) for t in x[:3]]), *heads)


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    q, k, v = x[:3]
    for t, what in ((q, "q"), (k, "k"), (v, "v")):
        need_rank(t, 3 if a["grouped"] else 2, what=what)
        need_float(t, what)
    if q.shape[-1] != k.shape[-1]:
        raise TypeMismatch(f"q is {q} and k is {k}, expected equal last dimensions")
    if k.shape[-2] != v.shape[-2]:
        raise TypeMismatch(f"k is {k} and v is {v}, expected equal lengths (dimension -2)")
    if a["grouped"] and (k.shape[-3] != v.shape[-3] or q.shape[-3] % k.shape[-3]):
        raise TypeMismatch(f"grouped: q is {q}, k is {k}, v is {v}, expected heads of q a multiple of k's and v's")
    if len(x) > 3 and a["causal"]:
        raise TypeMismatch("causal=True with a mask: put the causal mask into the mask")
    lead = _lead(a, x)
    if len(x) > 3:
        _need_mask(x[3], (*lead, q.shape[-2], k.shape[-2]), "mask")
    if not 0 <= a["dropout"] <= 1:
        raise TypeMismatch(f"dropout={a['dropout']}, expected a probability from 0 to 1")
    return (Type((*lead, q.shape[-2], v.shape[-1]), q.dtype),)


def _cost(a: A, x: Types, y: Types) -> Cost:
    q, k, v = x[:3]
    rows, length, source, nbytes = math.prod(y[0].shape[:-2]), q.shape[-2], k.shape[-2], DTYPES[q.dtype]
    flops = 2 * rows * length * source * (q.shape[-1] + v.shape[-1])
    # torch's fused kernels need four dimensions, one width, no dropout on the CPU, and no gradient of the mask
    fused = len(q.shape) == len(k.shape) == len(v.shape) == 4 and q.shape[-1] == v.shape[-1] and not a["dropout"]
    if fused and (len(x) < 4 or (x[3].dtype == "bool" and len(x[3].shape) in (2, 4))):
        mask = x[3].numel * nbytes if len(x) > 3 else 0  # made a mask of numbers
        return Cost(flops, ("x0", "x1", "x2", "y0"), extra=rows * length * max(4, nbytes) + mask)
    weights = rows * length * source * (3 if a["dropout"] else 1)  # with dropout its mask, and what it leaves
    scaled = rows * (length + source) * q.shape[-1]  # q and k times the root of the scale
    repeated = rows * source * v.shape[-1] if rows != math.prod(v.shape[:-2]) else 0
    return Cost(flops, () if repeated else ("x2",), extra=(weights + scaled + repeated) * nbytes)


def _run(a: A, x, w, train):
    return F.scaled_dot_product_attention(
        *x, dropout_p=a["dropout"] if train else 0.0, is_causal=a["causal"], scale=a["scale"], enable_gqa=a["grouped"]
    )


def _aligned(shape: tuple[int, ...], dims: Dims) -> Dims:
    """Terms for a shape that broadcasts, from the right, to dimensions with these terms."""
    sizes = [math.prod(t.size for t in d) if isinstance(d, Prod) else d.size for d in dims]  # type: ignore[union-attr]
    lead = len(dims) - len(shape)
    return tuple([dims[lead + i] if n == sizes[lead + i] else Dim(None, n) for i, n in enumerate(shape)])


def _axes(a: A, x: Types, y: Types) -> Axes:
    q, k, v = (t.shape for t in x[:3])
    names = (None, None) if a["causal"] else ("l", "s")
    length, source = Dim(names[0], q[-2]), Dim(names[1], k[-2])
    inside, outside = Dim("e", q[-1]), Dim("v", v[-1])
    lead: Dims = tuple([Dim(f"b{i}", n) for i, n in enumerate(y[0].shape[:-2])])
    kv_lead = lead
    if a["grouped"]:
        head = Dim("h", k[-3])
        lead, kv_lead = (*lead[:-1], Prod(head, Dim("r", q[-3] // k[-3]))), (*lead[:-1], head)
    inputs = [
        (*_aligned(q[:-2], lead), length, inside),
        (*_aligned(k[:-2], kv_lead), source, inside),
        (*_aligned(v[:-2], kv_lead), source, outside),
    ]
    if len(x) > 3:
        inputs.append(_aligned(x[3].shape, (*lead, length, source)))
    scale = 1 / math.sqrt(q[-1]) if a["scale"] is None else a["scale"]
    return Axes(
        tuple(inputs),
        ((*lead, length, outside),),
        coupled=frozenset() if a["causal"] else frozenset(["s"]),
        freeze={"scale": scale},
    )


def _onnx(o, a, x, w, xt, yt):
    (q, k, v), dtype = x[:3], xt[0].dtype
    scale = 1 / math.sqrt(xt[0].shape[-1]) if a["scale"] is None else a["scale"]
    if a["grouped"]:
        k, v = (_onnx_repeat(o, value, t, xt[0].shape[-3]) for value, t in ((k, xt[1]), (v, xt[2])))
    bias = None
    if a["causal"]:
        bias = _onnx_bias(o, _onnx_causal(o, x[0], x[1]), "bool", dtype, hides=False)
    elif len(x) > 3:
        bias = _onnx_bias(o, x[3], xt[3].dtype, dtype, hides=False)
    return _onnx_attend(o, q, k, v, len(xt[1].shape), scale, dtype, bias, safe=len(x) > 3)[0]


def _onnx_repeat(o, x: str, t: Type, heads: int) -> str:
    """Every head (dimension -3) several times in a row."""
    if t.shape[-3] == heads:
        return x
    many = o.expand(o.unsqueeze(x, -3), heads // t.shape[-3], 1, 1)
    return o.reshape(many, [0] * (len(t.shape) - 3), heads, -1, t.shape[-1])


def _source(a: A, x: Types, y: Types) -> Source:
    options = ", attn_mask={x3}" if len(x) > 3 else ""
    if a["dropout"]:
        options += f", dropout_p={a['dropout']!r} if {{training}} else 0.0"
    options += ", is_causal=True" if a["causal"] else ""
    options += "" if a["scale"] is None else f", scale={a['scale']!r}"
    options += ", enable_gqa=True" if a["grouped"] else ""
    return Source(f"F.scaled_dot_product_attention({{x0}}, {{x1}}, {{x2}}{options})")


# -------------------------------------------------------------------------------------------------------- multihead
def multihead_attention(
    query, key, value, padding_mask, mask, in_weight, q_weight, k_weight, v_weight, in_bias, bias_k, bias_v,
    out_weight, out_bias, heads, scale, causal, zero_attn, batch_first, dropout, need_weights, average,
):  # fmt: skip
    """What torch.nn.MultiheadAttention computes, for any number of heads and any width of a head."""
    inner = out_weight.shape[1]  # heads * width of a head of v
    if in_weight is not None:
        width = (in_weight.shape[0] - inner) // 2
        q_weight, k_weight, v_weight = in_weight.split([width, width, inner])
    width = q_weight.shape[0]
    q_bias, k_bias, v_bias = (None, None, None) if in_bias is None else in_bias.split([width, width, inner])
    if in_weight is not None and query is key and key is value:
        q, k, v = F.linear(query, in_weight, in_bias).split([width, width, inner], dim=-1)
    else:
        q, k, v = F.linear(query, q_weight, q_bias), F.linear(key, k_weight, k_bias), F.linear(value, v_weight, v_bias)
    long = 1 if batch_first else 0
    extra = 0
    if bias_k is not None:
        batch = k.shape[1 - long]
        shape = (batch, 1, -1) if batch_first else (1, batch, -1)
        k, v = torch.cat([k, bias_k.expand(shape)], long), torch.cat([v, bias_v.expand(shape)], long)
        extra += 1
    if zero_attn:
        k, v = (torch.cat([x, torch.zeros_like(x.narrow(long, 0, 1))], long) for x in (k, v))
        extra += 1
    order = (0, 2, 1, 3) if batch_first else (1, 2, 0, 3)
    q, k, v = (x.unflatten(-1, (heads, -1)).permute(order) for x in (q, k, v))  # [N, heads, L or S, width]
    n, _, length, _ = q.shape
    source = k.shape[2] - extra

    hidden = []  # masks as numbers to add, each [..., L or 1, S]
    plain = causal and padding_mask is None and mask is None and not need_weights and not extra
    if causal and not plain:
        hidden.append(torch.ones(length, source, dtype=torch.bool, device=q.device).triu(1))
    if mask is not None:
        hidden.append(mask.reshape(n, heads, length, source) if mask.dim() == 3 else mask)
    if padding_mask is not None:
        hidden.append(padding_mask[:, None, None, :])
    bias = None
    for part in hidden:
        if part.dtype == torch.bool:
            part = torch.zeros(part.shape, dtype=q.dtype, device=q.device).masked_fill(part, float("-inf"))
        bias = part if bias is None else bias + part
    if bias is not None and extra:
        bias = F.pad(bias, (0, extra))

    if need_weights:
        scores = q * scale @ k.transpose(-2, -1)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        weights = F.dropout(weights, dropout) if dropout > 0 else weights
        y = weights @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, bias, dropout, plain, scale=scale)
    # the memory order of torch, also where the batch comes first: dropout draws in that order
    y = F.linear(y.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias)
    y = y.transpose(0, 1) if batch_first else y
    return (y, weights.mean(1) if average else weights) if need_weights else y


def _separate(a: A) -> bool:
    """Whether q, k and v have a weight each, as in torch where their widths differ."""
    return a["key_dim"] is not None or a["value_dim"] is not None


def _widths(a: A, x: Types) -> tuple[int, int, int, float]:
    """Width of the output, of a head of q and k, of a head of v; and the scale."""
    out = x[0].shape[-1] if a["size"] is None else a["size"]
    if a["head_dim"] is None and out % a["heads"]:
        raise TypeMismatch(f"width {out}, expected a multiple of heads={a['heads']}: or give head_dim")
    head = out // a["heads"] if a["head_dim"] is None else a["head_dim"]
    value = head if a["value_head_dim"] is None else a["value_head_dim"]
    return out, head, value, 1 / math.sqrt(head) if a["scale"] is None else a["scale"]


def _masks(a: A, x: Any) -> tuple[Any, Any]:
    """(padding mask or None, mask or None) out of the inputs."""
    return (
        x[3] if a["padding_mask"] else None,
        x[3 + a["padding_mask"]] if a["mask"] else None,
    )


def _heads_infer(a: A, x: Types) -> tuple[Type, ...]:
    wanted = 3 + a["padding_mask"] + a["mask"]
    if len(x) != wanted:
        raise TypeMismatch(
            f"{len(x)} inputs with padding_mask={a['padding_mask']} and mask={a['mask']}, expected {wanted}"
        )
    q, k, v = x[:3]
    for t, what in ((q, "q"), (k, "k"), (v, "v")):
        need_rank(t, 3, 3, what)
        need_float(t, what)
    if k.shape[:2] != v.shape[:2]:
        raise TypeMismatch(f"k is {k} and v is {v}, expected equal batch and length")
    batch = 0 if a["batch_first"] else 1
    if q.shape[batch] != k.shape[batch]:
        raise TypeMismatch(f"q is {q} and k is {k}, expected equal batches (dimension {batch})")
    for t, name in ((k, "key_dim"), (v, "value_dim")):
        width = q.shape[-1] if a[name] is None else a[name]
        if t.shape[-1] != width:
            raise TypeMismatch(f"{name[:-4]} is {t}, expected width {width}: set {name}={t.shape[-1]}")
    n, length, source = q.shape[batch], q.shape[1 - batch], k.shape[1 - batch]
    padding, mask = _masks(a, x)
    if padding is not None:
        _need_mask(padding, (n, source), "padding mask")
        if padding.shape != (n, source):
            raise TypeMismatch(f"padding mask is {padding}, expected shape {[n, source]}")
    if mask is not None:
        shape = (n * a["heads"], length, source) if len(mask.shape) == 3 else (length, source)
        if mask.shape != shape:
            raise TypeMismatch(f"mask is {mask}, expected shape {list(shape)}")
        _need_mask(mask, shape, "mask")
    out, _, _, _ = _widths(a, x)
    y = Type((*q.shape[:2], out), q.dtype)
    if not a["weights"]:
        return (y,)
    seen = source + a["bias_kv"] + a["zero_attn"]
    return y, Type((n, length, seen) if a["average"] else (n, a["heads"], length, seen), q.dtype)


def _heads_params(a: A, x: Types) -> dict[str, Param]:
    out, head, value, _ = _widths(a, x)
    width, inner, dtype = a["heads"] * head, a["heads"] * value, x[0].dtype

    def xavier(rows: int, columns: int) -> Param:
        return Param((rows, columns), ("uniform", math.sqrt(6 / (rows + columns))), dtype)

    found = {}
    if _separate(a):
        for name, t, rows in (("q", x[0], width), ("k", x[1], width), ("v", x[2], inner)):
            found[f"{name}_proj_weight"] = xavier(rows, t.shape[-1])
    else:
        found["in_proj_weight"] = xavier(2 * width + inner, x[0].shape[-1])
    if a["bias"]:
        found["in_proj_bias"] = Param((2 * width + inner,), ("zeros",), dtype)
    if a["bias_kv"]:
        found["bias_k"] = Param((1, 1, width), ("normal", 1 / math.sqrt(width)), dtype)
        found["bias_v"] = Param((1, 1, inner), ("normal", 1 / math.sqrt(inner)), dtype)
    found["out_proj.weight"] = Param((out, inner), ("uniform", 1 / math.sqrt(inner)), dtype)
    if a["bias"]:
        found["out_proj.bias"] = Param((out,), ("zeros",), dtype)
    return found


def _heads_cost(a: A, x: Types, y: Types) -> Cost:
    out, head, value, _ = _widths(a, x)
    heads, nbytes = a["heads"], DTYPES[x[0].dtype]
    batch = 0 if a["batch_first"] else 1
    n, length, source = x[0].shape[batch], x[0].shape[1 - batch], x[1].shape[1 - batch]
    width, inner = heads * head, heads * value
    seen = source + a["bias_kv"] + a["zero_attn"]
    projections = length * x[0].shape[-1] * width + source * (x[1].shape[-1] * width + x[2].shape[-1] * inner)
    attention = length * seen * (width + inner)
    flops = 2 * n * (projections + attention + length * inner * out)
    projected = n * (length * width + seen * (width + inner)) * nbytes  # q, k and v as the heads see them
    merged = n * length * inner * nbytes  # what the output projection reads
    if a["weights"] or a["dropout"] or head != value or any("float" in t.dtype for t in x[3:]):  # not fused: see _cost
        kept = n * heads * length * seen * (3 if a["dropout"] else 1)
    else:
        kept = n * heads * length
        if a["padding_mask"] or a["mask"] or (a["causal"] and seen > source):  # one mask of numbers
            each = a["mask"] and len(x[-1].shape) == 3
            rows = n * heads if each else n if a["padding_mask"] else 1
            kept += rows * (length if a["causal"] or a["mask"] else 1) * seen
    return Cost(flops, ("x0", "x1", "x2"), extra=kept * nbytes + projected + merged)


def _heads_run(a: A, x, w, train):
    _, _, _, scale = _widths(a, x)
    return multihead_attention(
        x[0], x[1], x[2], *_masks(a, x), w.get("in_proj_weight"), w.get("q_proj_weight"), w.get("k_proj_weight"),
        w.get("v_proj_weight"), w.get("in_proj_bias"), w.get("bias_k"), w.get("bias_v"), w["out_proj.weight"],
        w.get("out_proj.bias"), a["heads"], scale, a["causal"], a["zero_attn"], a["batch_first"],
        a["dropout"] if train else 0.0, a["weights"], a["average"],
    )  # fmt: skip


def _heads_axes(a: A, x: Types, y: Types) -> Axes:
    out, head, value, scale = _widths(a, x)
    heads, o = Dim("h", a["heads"]), Dim("o", out)
    key_width, value_width = Prod(heads, Dim("k", head)), Prod(heads, Dim("v", value))
    batch = 0 if a["batch_first"] else 1
    sizes = x[0].shape[batch], x[0].shape[1 - batch], x[1].shape[1 - batch]
    n = Dim("n", sizes[0])
    length, source = (Dim(None if a["causal"] else name, m) for name, m in (("l", sizes[1]), ("s", sizes[2])))

    def placed(long: Dim, wide: Dim) -> Dims:
        return (n, long, wide) if a["batch_first"] else (long, n, wide)

    # one packed weight reads q, k and v: their widths are one axis
    inside = [Dim(f"i{j}" if _separate(a) else "i", t.shape[-1]) for j, t in enumerate(x[:3])]
    inputs = [placed(length, inside[0]), placed(source, inside[1]), placed(source, inside[2])]
    if a["padding_mask"]:
        inputs.append((n, source))
    if a["mask"]:
        inputs.append((Prod(n, heads), length, source) if len(x[-1].shape) == 3 else (length, source))
    packed = Cat(key_width, key_width, value_width)
    known: dict[str, Dims] = {
        "in_proj_weight": (packed, inside[0]),
        "q_proj_weight": (key_width, inside[0]),
        "k_proj_weight": (key_width, inside[1]),
        "v_proj_weight": (value_width, inside[2]),
        "in_proj_bias": (packed,),
        "bias_k": (Dim(None, 1), Dim(None, 1), key_width),
        "bias_v": (Dim(None, 1), Dim(None, 1), value_width),
        "out_proj.weight": (o, value_width),
        "out_proj.bias": (o,),
    }
    added = a["bias_kv"] + a["zero_attn"]
    seen = Cat(source, Dim(None, added)) if added else source
    outputs = [placed(length, o)]
    if a["weights"]:
        outputs.append((n, length, seen) if a["average"] else (n, heads, length, seen))
    # a head is summed over in the first output, but stands in the weights (or in their mean)
    coupled = {label for label, tied in (("s", not a["causal"]), ("h", a["weights"])) if tied}
    attrs = {"heads": heads, "size": o, "head_dim": Dim("k", head), "value_head_dim": Dim("v", value)}
    freeze = {"size": out, "head_dim": head, "value_head_dim": value, "scale": scale}
    if _separate(a):
        attrs |= {"key_dim": inside[1], "value_dim": inside[2]}
        freeze |= {"key_dim": inside[1].size, "value_dim": inside[2].size}
    named = {name: known[name] for name in _heads_params(a, x)}
    return Axes(tuple(inputs), tuple(outputs), named, frozenset(coupled), attrs, freeze, {"out_proj.weight": 1})


def _heads_onnx(o, a, x, w, xt, yt):
    _, head, value, scale = _widths(a, xt)
    heads, dtype = a["heads"], xt[0].dtype
    width, inner = heads * head, heads * value
    order = (0, 2, 1, 3) if a["batch_first"] else (1, 2, 0, 3)
    if _separate(a):
        weights = [w[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = o.split(w["in_proj_weight"], [width, width, inner], 0)
    biases = o.split(w["in_proj_bias"], [width, width, inner], 0) if a["bias"] else (None,) * 3
    batch = o.dim(x[0], 0 if a["batch_first"] else 1)
    parts = []
    for index, (weight, bias, size) in enumerate(zip(weights, biases, (head, head, value), strict=True)):
        made = o.node("MatMul", [x[index], o.transpose(weight, (1, 0))])
        made = o.node("Add", [made, bias]) if bias else made
        made = o.transpose(o.reshape(made, 0, 0, heads, size), order)
        rows = [made]
        if index and a["bias_kv"]:
            row = o.reshape(w["bias_k" if index == 1 else "bias_v"], 1, heads, 1, size)
            rows.append(o.expand(row, batch, 1, 1, 1))
        if index and a["zero_attn"]:
            rows.append(o.full(o.concat_ints(batch, heads, 1, size), 0.0, dtype))
        parts.append(o.concat(rows, 2))
    padding, mask = _masks(a, x)
    padding_type, mask_type = _masks(a, xt)
    biases = []
    if a["causal"]:
        # before rows were added to k: x[1] has its length in dimension 1 or 0
        q, k = x[:2] if a["batch_first"] else [o.transpose(value, (1, 0, 2)) for value in x[:2]]
        biases.append(_onnx_bias(o, _onnx_causal(o, q, k), "bool", dtype, hides=False))
    if mask:
        bias = _onnx_bias(o, mask, mask_type.dtype, dtype, hides=True)
        biases.append(o.reshape(bias, -1, heads, *mask_type.shape[1:]) if len(mask_type.shape) == 3 else bias)
    if padding:
        biases.append(o.unsqueeze(_onnx_bias(o, padding, padding_type.dtype, dtype, hides=True), 1, 2))
    total = None
    for bias in biases:
        total = bias if total is None else o.node("Add", [total, bias])
    added = a["bias_kv"] + a["zero_attn"]
    if total and added:
        total = o.node("Pad", [total, o.const([0, added]), None, o.const([-1])])
    y, weights = _onnx_attend(o, *parts, 4, scale, dtype, total, safe=not a["weights"])
    y = o.reshape(o.transpose(y, (0, 2, 1, 3) if a["batch_first"] else (2, 0, 1, 3)), 0, 0, inner)
    y = o.node("MatMul", [y, o.transpose(w["out_proj.weight"], (1, 0))])
    y = o.node("Add", [y, w["out_proj.bias"]]) if a["bias"] else y
    if not a["weights"]:
        return y
    return y, o.node("ReduceMean", [weights, o.const([1])], keepdims=0) if a["average"] else weights


def _heads_source(a: A, x: Types, y: Types) -> Source:
    out, head, value, scale = _widths(a, x)
    whole = x[0].shape[-1] == out == a["heads"] * head and value == head and scale == 1 / math.sqrt(head)
    packs = all(t.shape[-1] == x[0].shape[-1] for t in x[1:3])  # then torch holds one weight for all three
    if not whole or _separate(a) == packs or (a["causal"] and a["mask"]):
        return _heads_function(a, x)
    options = f", dropout={a['dropout']!r}" if a["dropout"] else ""
    for name, option, default in (
        ("bias", "bias", True), ("bias_kv", "add_bias_kv", False), ("zero_attn", "add_zero_attn", False),
        ("key_dim", "kdim", None), ("value_dim", "vdim", None), ("batch_first", "batch_first", False),
    ):  # fmt: skip
        options += "" if a[name] == default else f", {option}={a[name]!r}"
    call = ", key_padding_mask={x3}" if a["padding_mask"] else ""
    if a["mask"]:
        call += f", attn_mask={{x{3 + a['padding_mask']}}}"
    if a["causal"]:
        long = 1 if a["batch_first"] else 0
        sizes = f"{{x0}}.shape[{long}], {{x1}}.shape[{long}]"
        call += f", attn_mask=torch.ones({sizes}, dtype=torch.bool, device={{x0}}.device).triu(1)"
    call += "" if a["weights"] else ", need_weights=False"
    call += "" if a["average"] else ", average_attn_weights=False"
    return Source(
        f"{{self}}({{x0}}, {{x1}}, {{x2}}{call}){'' if a['weights'] else '[0]'}",
        module=f"nn.MultiheadAttention({out}, {a['heads']}{options})",
    )


def _heads_function(a: A, x: Types) -> Source:
    _, _, _, scale = _widths(a, x)
    has = _heads_params(a, x)
    padding, mask = _masks(a, [f"{{x{i}}}" for i in range(len(x))])
    names = (
        "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
        "out_proj.weight", "out_proj.bias",
    )  # fmt: skip
    weights = ", ".join("{" + name.replace(".", "_") + "}" if name in has else "None" for name in names)
    rest = ", ".join(repr(v) for v in (a["heads"], scale, a["causal"], a["zero_attn"], a["batch_first"]))
    dropout = f"{a['dropout']!r} if {{training}} else 0.0"
    return Source(
        f"multihead_attention({{x0}}, {{x1}}, {{x2}}, {padding}, {mask}, {weights}, {rest}, {dropout}, "
        f"{a['weights']!r}, {a['average']!r})",
        helpers=(multihead_attention,),
    )


_FLAG, _NONE = Attr("bool", False), Attr("size", None)

OPS = (
    Op(
        "attention", _infer, _run,
        {"causal": _FLAG, "scale": Attr("number", None), "dropout": Attr("number", 0.0), "grouped": _FLAG},
        inputs=(3, 4), cost=_cost, axes=_axes, onnx=_onnx, source=_source, random=True,
        doc="Scaled dot-product attention. scale None: 1 / sqrt(E).",
    ),
    Op(
        "multihead_attention", _heads_infer, _heads_run,
        {
            "heads": Attr("size"), "dropout": Attr("number", 0.0), "bias": Attr("bool", True), "batch_first": _FLAG,
            "key_dim": _NONE, "value_dim": _NONE, "bias_kv": _FLAG, "zero_attn": _FLAG, "padding_mask": _FLAG,
            "mask": _FLAG, "causal": _FLAG, "weights": Attr("bool", True), "average": Attr("bool", True),
            "size": _NONE, "head_dim": _NONE, "value_head_dim": _NONE, "scale": Attr("number", None),
        },
        inputs=(3, 5), params=_heads_params, cost=_heads_cost, axes=_heads_axes, onnx=_heads_onnx,
        source=_heads_source, random=True,
        doc="Attention with the projections of torch.nn.MultiheadAttention. size: width of the output (None: q's), "
        "head_dim: width of a head (None: size / heads), scale None: 1 / sqrt(head_dim).",
    ),
)  # fmt: skip
