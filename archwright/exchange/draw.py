"""A graph as an SVG picture: boxes with shapes, parameters and FLOPs; repeated blocks once; scopes framed."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path

from archwright import ops
from archwright.errors import EmitError
from archwright.exchange.layout import layout
from archwright.exchange.outline import Box, Cluster, Outline, outline
from archwright.ir import INPUT, Graph, Node
from archwright.net.net import Net

_MOST_BOXES = 60
_MARGIN = 28
_TITLE, _ROW, _FOOT = 22, 17, 20

_FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "convolution": ("#2f6fbb", "#e3eefa", ("conv",)),
    "linear": ("#5146b8", "#e9e7fa", ("linear", "matmul")),
    "attention": ("#8e3ba8", "#f5e6f9", ("attention",)),
    "recurrent": ("#b03a78", "#fbe5f0", ("recurrent",)),
    "norm, dropout": ("#1d8579", "#def3f0", ("norm", "dropout")),
    "activation": ("#c4721a", "#fcefdd", ("activation",)),
    "pooling, resizing": ("#3d8f3f", "#e5f4e4", ("pool", "resize")),
    "arithmetic": ("#b8443c", "#fae7e5", ("arithmetic", "elementary", "reduce", "select", "fft")),
    "shape": ("#66717d", "#eceff2", ("shape", "pieces", "fold", "index", "segment")),
    "other": ("#3f4a56", "#f1f3f5", ()),
}
"""Name -> colour, light colour, the family files of `archwright.ops` that it stands for."""


def draw(
    net: Net | Graph, path: str | os.PathLike[str] | None = None, *, depth: int | None = None, batch: int = 1
) -> str:
    """Draw a net or graph; the SVG text, also written to `path` if that is given.

    depth  how deep dotted names are unfolded; None chooses so that about 60 boxes are drawn
    batch  the batch size at which FLOPs are counted. Shapes have N for the batch

    Small operations are rows in the box of what they follow; equal blocks in a row are drawn once, with their number.
    Hovering shows attributes, types and costs in full. The text holds no scripts and needs no fonts or files.
    """
    graph = net.graph if isinstance(net, Net) else net
    text = _Drawing(graph, outline(graph, _MOST_BOXES, depth, batch), batch).text()
    if path is not None:
        target = Path(path)
        if target.is_dir():
            raise EmitError(f"{target} is a folder, expected the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.part")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, target)
    return text


@cache
def _families() -> Mapping[str, str]:
    """Op -> family."""
    found = {}
    for name, (_, _, files) in _FAMILIES.items():
        for file in files:
            for op in getattr(importlib.import_module(f"archwright.ops.{file}"), "OPS", ()):
                found[op.name] = name
    return found


class _Drawing:
    def __init__(self, graph: Graph, found: Outline, batch: int) -> None:
        self.graph = graph
        self.outline = found
        self.batch = batch
        self.known = ops.analyse(graph, batch)
        self.run = ops.reads(graph)
        self.low, self.high = ops.infer(graph, 2), ops.infer(graph, 3)
        self.rows = [self._rows(box) for box in found.boxes]
        # once without frames, to see which of them can be drawn; then with room for these, as long as they can be
        self.framed: list[Cluster] = []
        self._arrange()
        clear = self._clear()
        for _ in range(4):
            if clear == self.framed:
                break
            self.framed = clear
            self._arrange()
            clear = [cluster for cluster in self._clear() if cluster in self.framed]

    def _arrange(self) -> None:
        self.titles = [self._title(index) for index in range(len(self.outline.boxes))]
        self.sizes = [self._size(index) for index in range(len(self.outline.boxes))]
        self.place = layout(self.sizes, self.outline.edges, [cluster.boxes for cluster in self.framed])

    # -------------------------------------------------------------------------------------------------------- words
    def shape(self, value: str) -> str:
        """A value's shape with N for the batch: N × 64 × 7 × 7."""
        sizes = []
        for m, n in zip(self.low[value].shape, self.high[value].shape, strict=True):
            step = n - m
            rest = m - 2 * step
            sizes.append(str(m) if not step else ("" if step == 1 else str(step)) + "N" + (f"+{rest}" if rest else ""))
        return " × ".join(sizes) or "scalar"

    def _title(self, index: int) -> str:
        box = self.outline.boxes[index]
        if box.kind == "input":
            return box.nodes[0].name
        if box.kind == "output":
            return "output" if len(self.graph.outputs) == 1 else f"output {self.graph.outputs.index(box.output)}"
        name = box.nodes[0].name if box.kind == "nodes" else self._name(box)
        inside = [cluster.path for cluster in self.framed if index in cluster.boxes]
        return name.removeprefix(".".join(max(inside, key=len)) + ".") if inside else name

    @staticmethod
    def _name(box: Box) -> str:
        """The name of a folded scope, or of a run of equal ones."""
        first = ".".join(box.path)
        number = re.search(r"\d+$", first)
        return first if number is None or box.count < 2 else f"{first}–{int(number[0]) + box.count - 1}"

    def _rows(self, box: Box) -> list[tuple[str, str]]:
        """(family, text) of each line of a box."""
        if box.kind in ("input", "output"):
            return []
        if box.kind == "nodes":
            shown = [node for node in box.nodes if node.op not in ("param", "buffer")] or box.nodes
            rows = [(self._family(node), self._words(node)) for node in shown]
            stem = re.sub(r"_?\d*$", "", box.nodes[0].name.rpartition(".")[2])
            if len(box.nodes) == 1 and rows[0][1] == stem.replace("_", " "):
                return []  # the title says it all
            for node in box.nodes:
                if node not in shown:
                    rows.append(("other", f"with {node.name.rpartition('.')[2]} {self.known[node.name].y[0]}"))
            return rows
        counts: dict[str, int] = {}
        family: dict[str, str] = {}
        for node in box.nodes:
            if node.op not in ("param", "buffer"):
                counts[node.op] = counts.get(node.op, 0) + 1
                family[node.op] = self._family(node)
        weight = {op: sum(self.known[n.name].cost.flops for n in box.nodes if n.op == op) for op in counts}
        ranked = sorted(counts, key=lambda op: (-weight[op], -counts[op]))
        rows = [(family[op], op + (f" ×{counts[op]}" if counts[op] > 1 else "")) for op in ranked[:4]]
        if len(ranked) > 4:
            rows.append(("other", f"and {sum(counts[op] for op in ranked[4:])} more"))
        return rows

    def _family(self, node: Node) -> str:
        return _families().get(node.op, "other")

    def _words(self, node: Node) -> str:
        """An op and what it is told, in few words."""
        f = self.known[node.name]
        attrs = dict(node.attrs)
        words = node.op.replace("_", " ")
        kernel, stride = attrs.pop("kernel", None), attrs.pop("stride", None)
        if kernel is not None:
            spatial = kernel if isinstance(kernel, tuple) else (kernel,) * max(1, len(f.x[0].shape) - 2)
            words += " " + "×".join(map(str, spatial))
        if "out" in attrs:
            axis = 1 if kernel is not None else -1
            words += f" {f.x[0].shape[axis]}→{attrs.pop('out')}"
        if stride is not None:
            words += f" /{_short(stride)}"
        for key in ("padding", "bias", "init", "eps", "batch_first"):  # seen in the shapes, or of no interest here
            attrs.pop(key, None)
        for key, value in attrs.items():
            piece = f" {_short(value)}" if key in _PLAIN else f" {key}={_short(value)}"
            if len(words) + len(piece) > 34:
                return words + " …"
            words += piece
        return words

    # ------------------------------------------------------------------------------------------------------- places
    def _size(self, index: int) -> tuple[float, float]:
        box, rows = self.outline.boxes[index], self.rows[index]
        if box.kind in ("input", "output"):
            return max(_wide(self.titles[index], 12, True), _wide(self.shape(box.output), 10.5)) + 32, 38
        title = _wide(self.titles[index], 12, True) + 20
        text = max([_wide(words, 11) for _, words in rows], default=0) + 30
        foot = _wide(self._foot(box), 10.5) + 20
        return min(max(title, text, foot, 120), 300), _TITLE + _ROW * len(rows) + _FOOT + 4

    def _foot(self, box: Box) -> str:
        return " · ".join([self.shape(box.output), *_costs(box)])

    # ---------------------------------------------------------------------------------------------------------- svg
    def text(self) -> str:
        """The SVG."""
        frames = self._frames()
        drop = _MARGIN + 46 + max([self.place.head, *(-y + 16 for _, y, *_ in frames)])
        side = _MARGIN + max([0.0, *(-x for x, *_ in frames)])
        legend = self._legend()
        width = max(self.place.width + side + _MARGIN + 10, 420.0, _wide(self._summary(), 12) + 2 * _MARGIN)
        height = self.place.height + drop + _MARGIN + 14
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONT}" font-size="11" fill="#1f2933">',
            f"<title>{escape(self._summary())}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.2" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0.8 0.8L7.2 4L0.8 7.2z" fill="#8593a1"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="{_MARGIN + 8}" font-size="12" fill="#52606d">{escape(self._summary())}</text>',
            *legend,
            f'<g transform="translate({side:.0f} {drop:.0f})">',
            *[self._frame(*frame) for frame in frames],
            '<g fill="none" stroke="#8593a1" stroke-width="1.3">',
            *self._edges(),
            "</g>",
            *[self._box(index) for index in range(len(self.outline.boxes))],
            "</g>",
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _summary(self) -> str:
        params = sum(_numel(param.shape) for param in ops.params(self.graph).values() if not param.buffer)
        flops = sum(self.known[name].cost.flops for name in ops.reads(self.graph, False))
        nodes = sum(node.op != INPUT for node in self.graph.nodes)
        at = "" if self.batch == 1 else f" at batch {self.batch}"
        return f"{_count(params)} parameters   ·   {_count(flops, 'FLOPs')}{at}   ·   {nodes} nodes"

    def _legend(self) -> list[str]:
        used = {family for rows in self.rows for family, _ in rows}
        parts, x = [], float(_MARGIN)
        for name, (colour, light, _) in _FAMILIES.items():
            if name in used:
                parts.append(
                    f'<rect x="{x:.1f}" y="{_MARGIN + 22}" width="11" height="11" rx="2.5" fill="{light}" '
                    f'stroke="{colour}"/><text x="{x + 16:.1f}" y="{_MARGIN + 31.5}" font-size="10.5" '
                    f'fill="#52606d">{name}</text>'
                )
                x += _wide(name, 10.5) + 32
        return parts

    def _edges(self) -> list[str]:
        lines = []
        drawn: set[tuple[int, str]] = set()
        for (source, target), route in zip(self.outline.edges, self.place.routes, strict=True):
            long = self.place.layers[target] - self.place.layers[source] > 1
            style = ' stroke="#5c8fd6"' if long else ""
            if (source, route) not in drawn:
                drawn.add((source, route))
                lines.append(f'<path d="{route}" marker-end="url(#tip)"{style}/>')
        return lines

    def _box(self, index: int) -> str:
        box, rows = self.outline.boxes[index], self.rows[index]
        (x, y), (w, h) = self.place.places[index], self.sizes[index]
        title = escape(_clip(self.titles[index], w - 20, 12, True))
        if box.kind in ("input", "output"):
            return (
                f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(self._hover(box))}</title>'
                f'<rect width="{w:.1f}" height="{h}" rx="{h / 2}" fill="#f5f7fa" stroke="#9aa5b1"/>'
                f'<text x="{w / 2:.1f}" y="16" text-anchor="middle" font-size="12" font-weight="600">{title}</text>'
                f'<text x="{w / 2:.1f}" y="30" text-anchor="middle" font-size="10.5" fill="#52606d">'
                f"{escape(self.shape(box.output))}</text></g>"
            )
        family = rows[0][0] if rows else self._family(box.nodes[0])
        colour, light, _ = _FAMILIES[family]
        # what no output needs is pale
        pale = ' opacity="0.4"' if not any(node.name in self.run for node in box.nodes) else ""
        parts = [f'<g transform="translate({x:.1f} {y:.1f})"{pale}><title>{escape(self._hover(box))}</title>']
        for step in range(min(2, box.count - 1), 0, -1):
            parts.append(
                f'<rect x="{4 * step}" y="{4 * step}" width="{w:.1f}" height="{h}" rx="6" fill="#fff" '
                f'stroke="{colour}" stroke-opacity="0.55"/>'
            )
        edge = f'stroke="{colour}" stroke-width="1.2"' + ' stroke-dasharray="5 3"' * (box.kind == "scope")
        parts.append(f'<rect width="{w:.1f}" height="{h}" rx="6" fill="#fff" {edge}/>')
        parts.append(f'<path d="M0 {_TITLE}V6a6 6 0 0 1 6 -6H{w - 6:.1f}a6 6 0 0 1 6 6V{_TITLE}z" fill="{light}"/>')
        parts.append(f'<text x="10" y="15.5" font-size="12" font-weight="600" fill="{colour}">{title}</text>')
        if box.count > 1:
            parts.append(_badge(w, f"×{box.count}", colour))
        for number, (kind, words) in enumerate(rows):
            line = _TITLE + _ROW * number
            tint = _FAMILIES[kind][0]
            parts.append(f'<rect x="10" y="{line + 6}" width="7" height="7" rx="1.5" fill="{tint}"/>')
            parts.append(f'<text x="22" y="{line + 13}">{escape(_clip(words, w - 30, 11))}</text>')
        foot = h - 8
        parts.append(f'<path d="M8 {h - _FOOT - 1}H{w - 8:.1f}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="10" y="{foot}" font-size="10.5" fill="#52606d">{escape(self.shape(box.output))}</text>')
        costs = _costs(box)
        if costs:
            parts.append(
                f'<text x="{w - 10:.1f}" y="{foot}" font-size="10.5" fill="#52606d" text-anchor="end">'
                f"{' · '.join(costs)}</text>"
            )
        return "".join(parts) + "</g>"

    def _hover(self, box: Box) -> str:
        if box.kind == "output":
            return f"{box.output}: {self.low[box.output].dtype} {self.shape(box.output)}"
        lines = []
        if box.kind == "scope":
            lines.append(f"{self._name(box)}: {len(box.nodes)} nodes" + f" in each of {box.count}" * (box.count > 1))
        for node in box.nodes[:24]:
            f = self.known[node.name]
            told = ", ".join(f"{key}={_short(value)}" for key, value in node.attrs.items() if node.op != INPUT)
            params = sum(_numel(p.shape) for p in f.params.values() if not p.buffer)
            costs = f", {params:,} parameters" * (params > 0) + f", {f.cost.flops:,} FLOPs" * (f.cost.flops > 0)
            shape = f"{self.low[node.name].dtype} {self.shape(node.name)}"
            lines.append(f"{node.name}: {node.op}({told}) -> {shape}{costs}")
        if len(box.nodes) > 24:
            lines.append(f"and {len(box.nodes) - 24} more")
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------------- frames
    def _clear(self) -> list[Cluster]:
        """The unfolded scopes that can be framed: nothing else stands within. Those that are repeated always are."""
        found = []
        for cluster in self.outline.clusters:
            inside = set(cluster.boxes)
            others = [(*self.place.places[i], *self.sizes[i]) for i in range(len(self.sizes)) if i not in inside]
            alone = not any(_overlap(frame, box) for frame in self._around(cluster) for box in others)
            same = any(other.boxes == cluster.boxes and other.path[: len(cluster.path)] == cluster.path
                       and other is not cluster for other in self.outline.clusters)  # fmt: skip
            if len(cluster.paths) > 1 or (alone and not same):
                found.append(cluster)
        return found

    def _frames(self) -> list[tuple[float, float, float, float, str, str, bool]]:
        """x, y, width, height, label, what hovering tells, whether it is repeated: one for each frame and column."""
        found = []
        for cluster in self.framed:
            repeated = len(cluster.paths) > 1
            label = _span([".".join(path) for path in cluster.paths])
            label += f"  ×{len(cluster.paths)}" if repeated else ""
            about = f"{label}: {_count(cluster.params)} parameters, {_count(cluster.flops, 'FLOPs')}"
            found += [(*frame, label, about + " in all" * repeated, repeated) for frame in self._around(cluster)]
        return found

    def _around(self, cluster: Cluster) -> list[tuple[float, float, float, float]]:
        """The rectangles around a scope's boxes, one in each column."""
        columns: dict[int, list[int]] = {}
        for index in cluster.boxes:
            columns.setdefault(self.place.columns[index], []).append(index)
        frames = []
        for members in columns.values():
            first = min(self.place.layers[i] for i in members)
            nested = [o for o in self.framed if o is not cluster and set(o.boxes) <= set(cluster.boxes)
                      and len(o.path) > len(cluster.path)]  # fmt: skip
            depth = 1 if nested else 0
            here = [set(o.boxes) & set(members) for o in nested if first in [self.place.layers[i] for i in o.boxes]]
            here = [part for part in here if part]
            starting = max([sum(part <= other for other in here) for part in here], default=0)
            pad = 18 + 6 * depth
            left = min(self.place.places[i][0] for i in members) - pad
            top = min(self.place.places[i][1] for i in members) - 7 - 17 * starting
            right = max(self.place.places[i][0] + self.sizes[i][0] for i in members) + pad
            bottom = max(self.place.places[i][1] + self.sizes[i][1] for i in members) + 8 + 4 * depth
            frames.append((left, top, right - left, bottom - top))
        return frames

    def _frame(self, x: float, y: float, w: float, h: float, label: str, about: str, repeated: bool) -> str:
        colour = "#c9a227" if repeated else "#cbd2d9"
        tone = "#8a6d00" if repeated else "#7b8794"
        return (
            f'<g><title>{escape(about)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="9" '
            f'fill="#7b8794" fill-opacity="0.05" stroke="{colour}"/>'
            f'<text x="{x + 4:.1f}" y="{y - 4:.1f}" font-size="10.5" fill="{tone}">'
            f"{escape(label)}</text></g>"
        )


_PLAIN = ("dim", "shape", "dims", "value", "equation", "target", "size")
"""Attributes that need no name to be understood."""

_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, DejaVu Sans, sans-serif"


def _costs(box: Box) -> list[str]:
    costs = [_count(box.params)] if box.params else []
    return costs + ([_count(box.flops, "F")] if box.flops else [])


def _badge(right: float, text: str, colour: str) -> str:
    w = _wide(text, 11, True) + 12
    return (
        f'<rect x="{right - w - 5:.1f}" y="3.5" width="{w:.1f}" height="15" rx="7.5" fill="{colour}"/>'
        f'<text x="{right - w / 2 - 5:.1f}" y="15" text-anchor="middle" font-weight="600" fill="#fff">{text}</text>'
    )


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _span(paths: Sequence[str]) -> str:
    """ "blocks.0" and "blocks.11" as "blocks.0–11"."""
    first, last = paths[0], paths[-1]
    return first if first == last else f"{first}–{re.findall(r'[0-9]+$', last)[0]}"


def _numel(shape: Iterable[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _count(n: float, of: str = "") -> str:
    """A count in few digits: 11.7 M, 4.1 GFLOPs."""
    power = 0
    while n >= 999.5 and power < 4:
        n, power = n / 1000, power + 1
    return f"{n:.3g} {('', 'k', 'M', 'G', 'T')[power]}{of}".rstrip()


def _short(value: object) -> str:
    """An attribute's value in few letters."""
    if isinstance(value, tuple):
        text = "×".join(map(_short, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(_short, value))
        return _ellipsis(text, 20)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{…}"
    return _ellipsis(str(value), 24)


def _ellipsis(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


_NARROW, _BROAD = set("iljtfr.,:;|!'()[] ·"), set("mwMWGOQ×→")


def _wide(text: str, size: float, bold: bool = False) -> float:
    """About how many pixels wide a text is."""
    units = sum(0.37 if c in _NARROW else 0.9 if c in _BROAD else 0.7 if c.isupper() else 0.63 for c in text)
    return units * size * (1.08 if bold else 1.0)


def _clip(text: str, width: float, size: float, bold: bool = False) -> str:
    """A text that fits, its middle left out where it is too long."""
    if _wide(text, size, bold) <= width:
        return text
    keep = len(text) - 1
    while keep > 4 and _wide(text[:keep], size, bold) > width:
        keep -= 1
    head = keep // 3
    return text[:head] + "…" + text[len(text) - (keep - head - 1) :]
