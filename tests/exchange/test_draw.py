"""Pictures of nets: well-formed SVG, nothing on top of another, folded to what a person can read, and quickly."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import pytest

from archwright import draw, edit
from archwright.exchange.layout import layout, spread
from archwright.exchange.outline import outline
from archwright.ir import Graph
from archwright.net.net import init
from tests.net import graphs, nets

NETS = {**graphs.ALL, **nets.ALL}
SVG = "{http://www.w3.org/2000/svg}"


def _words(text: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(text).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_picture(name: str, tmp_path: Path) -> None:
    graph = NETS[name]()
    text = draw(graph, tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_text() == text and [f.name for f in tmp_path.iterdir()] == ["net.svg"]
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and not list(root.iter(f"{SVG}script"))
    assert not re.search(r"\b(nan|inf)\b", text)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert 100 < width < 4000 and 100 < height < 6000
    words = _words(text)
    for node in graph.inputs:
        assert node.name in words
    assert sum(word.startswith("output") for word in words) == len(graph.outputs)


@pytest.mark.parametrize("name", NETS)
def test_boxes_stand_apart_and_edges_go_down(name: str) -> None:
    graph = NETS[name]()
    found = outline(graph)
    sizes = [(100.0 + 7 * (i % 5), 30.0 + 11 * (i % 4)) for i in range(len(found.boxes))]
    place = layout(sizes, found.edges)
    frames = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(place.places, sizes, strict=True)]
    for a, b in combinations(frames, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for (source, target), route in zip(found.edges, place.routes, strict=True):
        assert place.layers[source] < place.layers[target] and place.columns[source] <= place.columns[target]
        start, *_, end = re.findall(r"-?[\d.]+ -?[\d.]+", route)
        x, y = map(float, start.split())
        assert frames[source][0] <= x <= frames[source][2] and y == pytest.approx(frames[source][3], abs=0.06)
        x, y = map(float, end.split())
        assert frames[target][0] <= x <= frames[target][2] and y == pytest.approx(frames[target][1], abs=0.06)


def test_every_node_is_in_a_box_and_costs_add_up() -> None:
    for make in NETS.values():
        graph = make()
        found = outline(graph, depth=100)
        if any(len(cluster.paths) > 1 for cluster in found.clusters):
            continue
        shown = [node.name for box in found.boxes for node in box.nodes]
        assert set(shown) == {node.name for node in graph.nodes}
        # box by box, as a part of a net: what is not run costs nothing
        assert sum(box.flops for box in found.boxes) == init(graph).cost().flops


def test_equal_blocks_are_drawn_once() -> None:
    graph = nets.vision_transformer(blocks=12)
    found = outline(graph)
    repeated = [cluster for cluster in found.clusters if len(cluster.paths) > 1]
    assert [len(cluster.paths) for cluster in repeated] == [12]
    assert len(found.boxes) < 30
    assert "blocks.0–11  ×12" in _words(draw(graph))
    folded = outline(graph, depth=1)
    assert 12 in [box.count for box in folded.boxes]


def test_repeats_count_all_their_parameters() -> None:
    graph = nets.vision_transformer(blocks=5)
    one, five = outline(nets.vision_transformer(blocks=1), depth=1), outline(graph, depth=1)
    single = next(box for box in one.boxes if box.kind == "scope" and box.path[0] == "blocks")
    run = next(box for box in five.boxes if box.count == 5)
    assert run.params == 5 * single.params and run.flops == 5 * single.flops


def test_depth_says_how_far_names_are_unfolded() -> None:
    graph = nets.residual()
    counts = [len(outline(graph, depth=depth).boxes) for depth in (0, 1, 2, 3)]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert "layer1.0" not in draw(graph, depth=0).replace("layer1.0.", "")


def test_large_nets_are_folded_to_a_readable_number_and_quickly() -> None:
    graph = nets.residual(widths=(4, 8, 12, 16, 20, 24), blocks=4, size=128, bottleneck=True)
    g = edit(graph)
    deep = g.finish()
    begin = time.perf_counter()
    text = draw(deep)
    assert time.perf_counter() - begin < 5
    assert len(deep) > 200 and 20 < len(outline(deep).boxes) <= 60
    root = ElementTree.fromstring(text)
    assert float(root.get("height", 0)) < 3000


def test_a_long_chain_is_wrapped_into_columns() -> None:
    g = edit()
    x = g.input("x", (None, 8))
    for _ in range(50):
        x = g.add("linear", x, out=8)
    root = ElementTree.fromstring(draw(g.finish(x)))
    assert 0.5 < float(root.get("width", 0)) / float(root.get("height", 0)) < 3


def test_shapes_have_n_for_the_batch() -> None:
    g = edit()
    x = g.input("x", (None, 3, 4))
    graph = g.finish(g.add("reshape", x, shape=(-1, 4)), g.add("param", shape=(7,), name="p"))
    words = _words(draw(graph))
    assert "N × 3 × 4" in words and "3N × 4" in words and "7" in words


def test_names_are_escaped() -> None:
    g = edit()
    x = g.input("<a&b>", (None, 3))
    ElementTree.fromstring(draw(g.finish(g.add("relu", x, name='"<&>"'))))


def test_a_graph_that_only_hands_on() -> None:
    g = edit()
    x = g.input("x", (None, 3))
    assert len(outline(Graph(g.finish(x).nodes, (x, x))).boxes) == 3
    draw(g.finish(x))


def test_spread_is_least_squares_under_distances() -> None:
    assert spread([0.0, 10.0], [1.0, 1.0], [5.0]) == [0.0, 10.0]
    assert spread([0.0, 0.0], [1.0, 1.0], [4.0]) == [-2.0, 2.0]
    assert spread([0.0, 0.0], [3.0, 1.0], [4.0]) == [-1.0, 3.0]
    assert spread([], [], []) == []
