"""A layered layout for directed graphs: boxes in layers from top to bottom, long edges on straight tracks beside them.

Layers by longest path; order within layers by barycentres; horizontal places by least squares under minimal
distances; a drawing that would be too tall is wrapped into columns. All lengths are in pixels.
Method: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X, GAP_Y = 40.0, 28.0
GUTTER = 50.0
LANE = 8.0
_CLEAR = 12.0
_ROUND = 7.0
_HEAD = 17.0  # room for the label of a frame
_CUT = 60.0  # a column may be so much taller for one edge less from column to column
_MOST_COLUMNS, _LEAST_COLUMN, _MOST_LAYERS = 8, 420.0, 300


@dataclass(frozen=True)
class Placement:
    """Where everything stands.

    places  (x, y) of the upper left corner of each box
    layers  the layer of each box; columns the column
    routes  for each edge the "d" of an SVG path
    head    how far lines reach above 0
    """

    places: list[tuple[float, float]]
    layers: list[int]
    columns: list[int]
    routes: list[str]
    width: float
    height: float
    head: float


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    frames: Sequence[Sequence[int]] = (),
    aspect: float = 1.5,
) -> Placement:
    """Place boxes of given (width, height), numbered in topological order.

    frames  sets of boxes that get a labelled frame: room for the label is left above them
    aspect  the wanted width / height
    """
    return _Layout(sizes, edges, frames).run(aspect)


def spread(wanted: Sequence[float], weights: Sequence[float], room: Sequence[float]) -> list[float]:
    """Positions nearest to the wanted ones (least squares) with at least room[i] between i and i + 1, in this order."""
    offsets = [0.0]
    for distance in room:
        offsets.append(offsets[-1] + distance)
    pools: list[list[float]] = []  # sum of weights, weighted mean, count: adjacent violators are pooled
    for value, weight, shift in zip(wanted, weights, offsets, strict=False):
        pools.append([weight, value - shift, 1])
        while len(pools) > 1 and pools[-2][1] > pools[-1][1]:
            w, mean, n = pools.pop()
            low = pools[-1]
            low[1] = (low[0] * low[1] + w * mean) / (low[0] + w)
            low[0] += w
            low[2] += n
    found = [mean for _, mean, n in pools for _ in range(int(n))]
    return [value + shift for value, shift in zip(found, offsets, strict=False)]


class _Layout:
    def __init__(
        self, sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], frames: Sequence[Sequence[int]]
    ) -> None:
        self.edges = edges
        self.frames = frames
        self.count = len(sizes)
        self.widths = [w for w, _ in sizes]
        self.heights = [h for _, h in sizes]
        self.layer = self._layers()
        self.depth = max(self.layer, default=0) + 1
        # long edges run through dummies, one chain for all edges of a source
        self.above: list[list[int]] = [[] for _ in sizes]
        self.below: list[list[int]] = [[] for _ in sizes]
        self.paths: list[list[int]] = []
        self.chains: dict[int, list[int]] = {}
        for source, target in edges:
            chain = self.chains.setdefault(source, [source])
            while self.layer[source] + len(chain) < self.layer[target]:
                self._link(chain[-1], self._dummy(self.layer[source] + len(chain)))
                chain.append(len(self.layer) - 1)
            steps = self.layer[target] - self.layer[source]
            self._link(chain[steps - 1], target)
            self.paths.append([*chain[:steps], target])
        self.near = self._near()
        self.rows: list[list[int]] = [[] for _ in range(self.depth)]
        self.x = [0.0] * len(self.layer)

    def _layers(self) -> list[int]:
        layer = [0] * self.count
        for source, target in sorted(self.edges, key=lambda edge: edge[1]):
            layer[target] = max(layer[target], layer[source] + 1)
        targets: dict[int, list[int]] = {}
        for source, target in self.edges:
            targets.setdefault(source, []).append(target)
        fed = {target for _, target in self.edges}
        for node in range(self.count):  # what needs nothing stands just above what needs it
            if node not in fed and node in targets:
                layer[node] = max(0, min(layer[target] for target in targets[node]) - 1)
        sources: dict[int, list[int]] = {}
        for source, target in self.edges:
            sources.setdefault(target, []).append(source)
        for node in reversed(range(self.count)):  # and so do the many that read one value
            if node in targets and len(sources.get(node, ())) == 1 and len(targets[sources[node][0]]) > 4:
                layer[node] = min(layer[target] for target in targets[node]) - 1
        return layer

    def _dummy(self, layer: int) -> int:
        self.layer.append(layer)
        self.above.append([])
        self.below.append([])
        return len(self.layer) - 1

    def _link(self, upper: int, lower: int) -> None:
        if lower not in self.below[upper]:
            self.below[upper].append(lower)
            self.above[lower].append(upper)

    def _near(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each box the boxes above and below that it should stand straight below and above."""
        up: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        down: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        for source, target in self.edges:
            span = self.layer[target] - self.layer[source]
            up[target].append((span, source))
            down[source].append((span, target))

        # what goes on in the next layer stands firm, what only joins again further down makes way
        self.firm = [1e4 if any(span == 1 for span, _ in found) else 1.0 for found in down]

        def closest(found: list[tuple[int, int]]) -> list[int]:
            best = min([(span, -self.firm[node]) for span, node in found], default=None)
            return [node for span, node in found if (span, -self.firm[node]) == best]

        return [closest(found) for found in up], [closest(found) for found in down]

    # ------------------------------------------------------------------------------------------------------- places
    def run(self, aspect: float) -> Placement:
        """Everything in order."""
        self._order()
        self._abscissas()
        self.tall = [max([self.heights[n] for n in row if n < self.count], default=0.0) for row in self.rows]
        starts = self._wrap(aspect)
        columns = len(starts)
        self.column = [max(i for i, start in enumerate(starts) if start <= layer) for layer in range(self.depth)]
        self._ordinates(starts)
        self._tracks()
        self.lanes = self._lanes()
        edge, self.sides = 0.0, [0.0] * columns
        for index in range(columns):
            members = [node for la in range(self.depth) if self.column[la] == index for node in self.rows[la]]
            low = min([self.x[n] - self._half(n) for n in members], default=0.0)
            high = max([self.x[n] + self._half(n) for n in members], default=0.0)
            for node in members:
                self.x[node] += edge - low
            self.sides[index] = edge + high - low + GUTTER / 2
            edge += high - low + GUTTER + LANE * len(self.lanes.get(index, ()))
        routes = self._routes()
        places = [(self.x[n] - self.widths[n] / 2, self.top[self.layer[n]]) for n in range(self.count)]
        lanes = max([len(found) for found in self.lanes.values()], default=0)
        return Placement(
            places,
            self.layer[: self.count],
            [self.column[layer] for layer in self.layer[: self.count]],
            routes,
            max([self.x[n] + self._half(n) for n in range(len(self.x))], default=0.0),
            max(self.bottoms, default=0.0) + (LANE * lanes + 12 if lanes else 0.0),
            14.0 + LANE * lanes if lanes else 0.0,
        )

    def _half(self, node: int) -> float:
        return self.widths[node] / 2 if node < self.count else LANE / 2

    def _order(self) -> None:
        """Few crossings: rows sorted by the mean place of their neighbours, down and up; the best order is kept."""
        for node, layer in enumerate(self.layer):
            self.rows[layer].append(node)
        place = [0.0] * len(self.layer)
        for row in self.rows:
            _count_out(row, place)
        best, rows = self._crossings(place), [row[:] for row in self.rows]
        for sweep in range(12):
            down = sweep % 2 == 0
            near = self.above if down else self.below
            for row in self.rows if down else self.rows[::-1]:
                means = {n: sum([place[m] for m in near[n]]) / len(near[n]) if near[n] else place[n] for n in row}
                row.sort(key=means.__getitem__)
                _count_out(row, place)
            crossings = self._crossings(place)
            if crossings < best:
                best, rows = crossings, [row[:] for row in self.rows]
        self.rows = rows

    def _crossings(self, place: Sequence[float]) -> int:
        count = 0
        for row in self.rows:
            seen: list[float] = []
            for node in row:
                ends = sorted(place[n] for n in self.below[node])
                count += sum(len(seen) - bisect_left(seen, end + 1e-9) for end in ends)
                for end in ends:
                    insort(seen, end)
        return count

    def _abscissas(self) -> None:
        """Boxes straight below each other where they can be."""
        rows = []
        for row in self.rows:
            boxes = [node for node in row if node < self.count]
            room = []
            for a, b in pairwise(boxes):
                between = row.index(b) - row.index(a) - 1
                room.append((self.widths[a] + self.widths[b]) / 2 + GAP_X + LANE * between)
            rows.append((boxes, room))
        up, down = self.near
        for sweep in range(25):
            for boxes, room in rows if sweep % 2 == 0 else rows[::-1]:
                first, second = (up, down) if sweep % 2 == 0 else (down, up)
                wanted = []
                for node in boxes:
                    near = first[node] or second[node]
                    wanted.append(sum([self.x[n] for n in near]) / len(near) if near else self.x[node])
                for node, x in zip(boxes, spread(wanted, [self.firm[n] for n in boxes], room), strict=True):
                    self.x[node] = x

    def _wrap(self, aspect: float) -> list[int]:
        """First layers of the columns: even ones, cut where few edges pass, of about the wanted aspect together."""
        boxes = range(self.count)
        width = max([self.x[n] + self._half(n) for n in boxes], default=0.0) + GUTTER
        width -= min([self.x[n] - self._half(n) for n in boxes], default=0.0)
        through = [0] * (self.depth + 1)
        for node, layer in enumerate(self.layer):
            through[layer + 1] += len(self.below[node])
        for members in self.frames:  # rather not through a frame
            layers = [self.layer[node] for node in members]
            for layer in range(min(layers) + 1, max(layers) + 1):
                through[layer] += 4
        ends = [0.0]
        for value in self.tall:
            ends.append(ends[-1] + value + GAP_Y)
        best = (abs(math.log(width / ends[-1] / aspect)), [0])
        most = min(_MOST_COLUMNS, int(ends[-1] // _LEAST_COLUMN), 1 if self.depth > _MOST_LAYERS else self.depth)
        for columns in range(2, most + 1):
            tallest, starts = self._cut(ends, through, columns)
            score = abs(math.log(columns * width / tallest / aspect)) + 0.08 * sum(through[start] for start in starts)
            best = min(best, (score, starts))
        return best[1]

    def _cut(self, ends: Sequence[float], through: Sequence[int], columns: int) -> tuple[float, list[int]]:
        """The height of the tallest column and the first layers: even columns, few edges cut."""
        goal = ends[-1] / columns
        known: list[tuple[float, list[int]]] = [(end**2 / goal, [0]) for end in ends]  # for the first n layers
        for _ in range(columns - 1):
            known = [
                min([(known[m][0] + (ends[n] - ends[m]) ** 2 / goal + _CUT * through[m], [*known[m][1], m])
                     for m in range(1, n)], default=(math.inf, [0]))
                for n in range(len(ends))
            ]  # fmt: skip
        starts = known[-1][1]
        return max(b - a for a, b in pairwise([*[ends[start] for start in starts], ends[-1]])), starts

    def _ordinates(self, starts: Sequence[int]) -> None:
        """The top of every layer, with room for the labels of frames that begin there."""
        begin: list[list[set[int]]] = [[] for _ in range(self.depth)]
        for members in self.frames:
            parts: dict[int, set[int]] = {}
            for node in members:
                parts.setdefault(self.column[self.layer[node]], set()).add(node)
            for part in parts.values():
                begin[min(self.layer[node] for node in part)].append(part)
        heads = [max([sum(part <= other for other in parts) for part in parts], default=0) for parts in begin]
        self.top, self.bottoms = [0.0] * self.depth, [0.0] * len(starts)
        y = 0.0
        for layer in range(self.depth):
            y = (0.0 if layer in starts else y) + _HEAD * heads[layer]
            self.top[layer] = y
            self.bottoms[self.column[layer]] = y + self.tall[layer]
            y += self.tall[layer] + GAP_Y

    def _tracks(self) -> None:
        """One straight track for each column that a long edge runs through, as near as it can be."""
        tracks = []
        for source, chain in self.chains.items():
            parts: dict[int, list[int]] = {}
            for node in chain[1:]:
                parts.setdefault(self.column[self.layer[node]], []).append(node)
            tracks += [(len(part), source, part) for part in parts.values()]
        laid: list[list[float]] = [[] for _ in range(self.depth)]
        for _, source, part in sorted(tracks):
            layers = [self.layer[node] for node in part]
            ends = [self.x[n] for node in part for n in self.below[node] if n < self.count]
            start = self.x[source] if self.column[self.layer[source]] == self.column[layers[0]] else None
            walls = [(self.x[n] - self._half(n) - _CLEAR, self.x[n] + self._half(n) + _CLEAR)
                     for la in layers for n in self.rows[la] if n < self.count]  # fmt: skip
            walls += [(x - LANE, x + LANE) for la in layers for x in laid[la]]
            x = _free(start, sum(ends) / len(ends) if ends else None, walls)
            for node in part:
                self.x[node] = x
                laid[self.layer[node]].append(x)

    # ------------------------------------------------------------------------------------------------------- routes
    def _lanes(self) -> dict[int, list[tuple[int, int]]]:
        """For each column the links that go on to the next one, the outermost lane first."""
        lanes: dict[int, list[tuple[int, int]]] = {}
        for upper, lowers in enumerate(self.below):
            for lower in lowers:
                here = self.column[self.layer[upper]]
                if here != self.column[self.layer[lower]]:
                    lanes.setdefault(here, []).append((upper, lower))
        for links in lanes.values():
            links.sort(key=lambda link: -self.x[link[0]])
        return lanes

    def _ports(self, node: int, others: Sequence[int]) -> dict[int, float]:
        """Where the links of a box begin or end: below or above the other end where possible, kept apart."""
        if node >= self.count:
            return dict.fromkeys(others, self.x[node])
        here = self.column[self.layer[node]]
        half = max(0.0, self.widths[node] / 2 - 14)
        aims = []
        for other in others:
            aim = self.x[other] if self.column[self.layer[other]] == here else self.x[node]
            aims.append((min(max(aim, self.x[node] - half), self.x[node] + half), other))
        aims.sort()
        gap = min(14.0, 2 * half / max(1, len(aims) - 1))
        weights = [4.0 if other < self.count else 1.0 for _, other in aims]
        found = spread([aim for aim, _ in aims], weights, [gap] * (len(aims) - 1))
        return {other: x for (_, other), x in zip(aims, found, strict=True)}

    def _routes(self) -> list[str]:
        out = [self._ports(node, self.below[node]) for node in range(len(self.layer))]
        into = [self._ports(node, self.above[node]) for node in range(len(self.layer))]
        routes = []
        for path in self.paths:
            first = path[0]
            x, y = out[first][path[1]], self.top[self.layer[first]] + self.heights[first]
            parts = [f"M{x:.1f} {y:.1f}"]
            for upper, lower in pairwise(path):
                end_x, end_y = into[lower][upper], self.top[self.layer[lower]]
                floor = self.top[self.layer[upper]] + self.tall[self.layer[upper]]
                here, there = self.column[self.layer[upper]], self.column[self.layer[lower]]
                if here != there:
                    parts.append(self._over(x, y, end_x, end_y, here, (upper, lower)))
                elif abs(end_x - x) < 0.5:
                    parts.append(f"L{end_x:.1f} {end_y:.1f}")
                else:
                    parts.append(f"L{x:.1f} {floor:.1f}" if y < floor else "")
                    mid = (floor + end_y) / 2
                    parts.append(f"C{x:.1f} {mid:.1f} {end_x:.1f} {mid:.1f} {end_x:.1f} {end_y:.1f}")
                x, y = end_x, end_y
            routes.append("".join(parts))
        return routes

    def _over(self, x: float, y: float, end_x: float, end_y: float, here: int, link: tuple[int, int]) -> str:
        """The way from the foot of a column to the head of the next."""
        lanes = self.lanes[here]
        lane = lanes.index(link)
        side = self.sides[here] + LANE * lane
        low = self.bottoms[here] + 12 + LANE * lane
        high = -14.0 - LANE * (len(lanes) - lane - 1)
        return _corners([(x, y), (x, low), (side, low), (side, high), (end_x, high), (end_x, end_y)])


def _count_out(row: Sequence[int], place: list[float]) -> None:
    for index, node in enumerate(row):
        place[node] = index - (len(row) - 1) / 2


def _free(start: float | None, end: float | None, walls: Sequence[tuple[float, float]]) -> float:
    """The position within no wall that makes the shortest way: straight on from the start where that costs nothing,
    and to the right where both sides are as near."""
    ends = [x for x in (start, end) if x is not None] or [0.0]
    best = []
    for x in [*ends, *(x for wall in walls for x in wall)]:
        if not any(low < x < high for low, high in walls):
            way = abs(x - ends[0]) * 1.01 + abs(x - ends[-1])
            best.append((way - (1.0 if x > ends[0] else 0.0), x))
    return min(best)[1]


def _corners(points: Sequence[tuple[float, float]]) -> str:
    """A line along points, with rounded corners."""
    parts = []
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        before, after = abs(x1 - x0) + abs(y1 - y0), abs(x2 - x1) + abs(y2 - y1)
        if not before or not after:
            parts.append(f"L{x1:.1f} {y1:.1f}")
            continue
        r = min(_ROUND, before / 2, after / 2)
        ax, ay = x1 - r * (x1 - x0) / before, y1 - r * (y1 - y0) / before
        bx, by = x1 + r * (x2 - x1) / after, y1 + r * (y2 - y1) / after
        parts.append(f"L{ax:.1f} {ay:.1f}Q{x1:.1f} {y1:.1f} {bx:.1f} {by:.1f}")
    return "".join(parts) + f"L{points[-1][0]:.1f} {points[-1][1]:.1f}"
