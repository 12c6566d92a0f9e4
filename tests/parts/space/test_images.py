import json
import time
from functools import partial

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core import registry
from archwright.core.choose import Picker, at_random, replay
from archwright.core.space import Space, Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.kit.augment import IMAGES
from archwright.net.build import build
from archwright.net.cost import cost
from archwright.net.net import init

part = registry.find("space/images")
module = registry.module(part)

SIZES = [(1, 4, 4), (1, 8, 8), (3, 7, 9), (1, 16, 5), (1, 28, 28), (3, 32, 32), (2, 33, 47), (3, 128, 128)]


def spec(shape, outputs=10):
    return Spec(((None, *shape),), outputs)


def space(shape, outputs=10, **hp):
    return Space("images", partial(module.draw, **hp), spec(shape, outputs))


def runs(graph, shape, outputs=10):
    made = build(init(graph))
    y = made(torch.randn(2, *shape))
    y.sum().backward()
    return y.shape == (2, outputs) and bool(y.isfinite().all())


def maps(graph):
    """Sizes of the maps that convolutions and pooling give."""
    types = ops.infer(graph, 1)
    return {types[node.name].shape[2:] for node in graph.nodes if node.op in ("conv", "max_pool", "avg_pool")}


@pytest.mark.parametrize("shape", SIZES)
def test_draws_of_any_size_run_and_no_map_gets_smaller_than_two(shape):
    rng = np.random.default_rng(0)
    made = space(shape)
    for _ in range(4 if shape[1] > 100 else 8):
        graph = made.draw(made.random(rng))
        assert min(min(size) for size in maps(graph)) >= 2
        if cost(graph).flops < 3e8:
            assert runs(graph, shape)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 1, 20)])
def test_images_of_a_few_pixels_are_taken_as_well(shape):
    made, rng = space(shape), np.random.default_rng(0)
    for _ in range(6):
        assert runs(made.draw(made.random(rng)), shape)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 96, 96)])
def test_every_size_from_300_to_300_thousand_weights_is_drawn(shape):
    made, rng = space(shape), np.random.default_rng(0)
    found = [cost(made.draw(made.random(rng))).params for _ in range(300)]
    for low in (300, 1_000, 3_000, 10_000, 30_000, 100_000):
        assert sum(low <= n < 3.2 * low for n in found) >= (1 if low < 1000 else 5), f"{low}: {sorted(found)[:5]}"


def test_a_draw_takes_a_few_milliseconds():
    made, rng = space((3, 32, 32)), np.random.default_rng(0)
    made.random(rng)
    began = time.process_time()
    for _ in range(50):
        made.random(rng)
    assert (time.process_time() - began) / 50 < 0.01


def test_stages_may_be_of_different_kinds_and_mixing_starts_where_maps_are_small():
    made, rng = space((1, 28, 28)), np.random.default_rng(0)
    traces = [made.random(rng) for _ in range(200)]
    kinds = [{v for k, v in t.items() if k.endswith(".kind")} for t in traces]
    assert any(len(found) == 3 for found in kinds) and set().union(*kinds) == set(module.KINDS)
    first = {t.get("stage1.kind") for t in traces}
    assert not first & {"mixer", "attention"}  # 784 positions
    assert {"mixer", "attention"} <= {t.get("stage2.kind") for t in traces}


def test_options_of_a_choice_are_the_same_in_every_draw():
    made, rng = space((1, 28, 28)), np.random.default_rng(0)
    seen = {}
    for _ in range(100):
        for name, options in made.decisions(made.random(rng)).items():
            assert seen.setdefault(name, options) == options, name


@pytest.mark.parametrize("kind", module.KINDS)
@pytest.mark.parametrize("down", ["conv", "max", "average"])
def test_every_kind_halves_the_map_and_grows_the_width(kind, down):
    trace = {"stages": 2, "width": 8, "growth": 2.0, "down": down, "stage1.depth": 0, "stage2.depth": 2,
             "stage2.kind": kind, "head.pool": "grid"}  # fmt: skip
    picker = Picker(replay(trace, at_random(np.random.default_rng(0))))
    graph = module.draw(picker, spec((1, 8, 8)))
    assert (4, 4) in maps(graph) and (2, 2) not in maps(graph)
    assert graph["head.linear"].attrs["out"] == 10
    assert init(graph).weights["head.linear.weight"].shape == (10, 9 * 16)
    assert runs(graph, (1, 8, 8))


def test_nodes_are_named_by_stage_and_block():
    trace = {"stages": 2, "stage1.depth": 0, "stage2.depth": 2, "stage2.kind": "residual", "stage2.squeeze": True}
    graph = module.draw(Picker(replay(trace, at_random(np.random.default_rng(0)))), spec((1, 8, 8)))
    names = {node.name for node in graph.nodes}
    assert {"stem.conv", "stage2.0.conv1", "stage2.1.conv2", "stage2.1.gate.up", "head.linear"} <= names


def test_widths_are_what_convolutions_run_fastest_with():
    assert [module._width(w) for w in (4, 5, 7.4, 13.5, 20.25, 31.6, 1)] == [4, 4, 8, 14, 20, 32, 2]


def test_room_fits_the_image():
    assert module.room(8, 8) == ((1,), 3, (64, 16, 4))
    assert module.room(28, 28) == ((1, 2), 3, (784, 196, 49))
    assert module.room(128, 128) == ((2, 4), 4, (4096, 1024, 256, 64))
    assert module.room(3, 200) == ((1,), 1, (600,))


@pytest.mark.parametrize("shape", SIZES)
def test_known_shapes_are_in_the_space_in_full(shape):
    shapes = module.known(spec(shape))
    assert 1 <= len(shapes) <= 12 and (min(shape[1:]) < 8 or len(shapes) >= 6)
    made = space(shape)
    for known in shapes:
        graph = made.draw({k: v for k, v in known.items() if not k.startswith("train.")})  # no choice lacks or is odd
        assert json.loads(json.dumps(known)) == known
        assert cost(graph).params < 300_000
    first = made.draw({k: v for k, v in shapes[0].items() if not k.startswith("train.")})
    assert runs(first, shape)
    assert cost(first).params < 50_000


def test_known_settings_of_training_are_within_what_is_searched():
    for shape in SIZES:
        for known in module.known(spec(shape)):
            settings = {k.removeprefix("train."): v for k, v in known.items() if k.startswith("train.")}
            assert set(settings) == {"lr", "weight_decay", "batch", "smoothing", "optimiser", "augment"}
            assert 1e-4 <= settings["lr"] <= 1e-1 and 1e-6 <= settings["weight_decay"] <= 0.3
            assert settings["batch"] in (16, 32, 64, 128, 256, 512) and settings["smoothing"] in (0.0, 0.05, 0.1)
            assert settings["optimiser"] in ("adamw", "sgd")
            assert settings["augment"] in IMAGES


def test_small_known_shapes_are_there_for_tight_limits():
    for shape in [(1, 8, 8), (1, 28, 28), (3, 96, 96)]:
        made = space(shape)
        sizes = [
            cost(made.draw({k: v for k, v in known.items() if not k.startswith("train.")})).params
            for known in module.known(spec(shape))
        ]
        assert min(sizes) < 3_000 and sum(n < 10_000 for n in sizes) >= 2


def test_what_is_no_image_is_refused():
    draw = partial(module.draw, Picker(at_random(np.random.default_rng(0))))
    with pytest.raises(TypeMismatch, match="expected one float32"):
        draw(Spec(((None, 8),), 2))
    with pytest.raises(TypeMismatch, match="expected one float32"):
        draw(Spec(((None, 1, 8, None),), 2))
    with pytest.raises(TypeMismatch, match="int64"):
        draw(Spec(((None, 1, 8, 8),), 2, ("int64",)))
    with pytest.raises(ChoiceError, match="expected some of conv, residual"):
        draw(spec((1, 8, 8)), kinds=["pool"])


@pytest.mark.slow
def test_claim_holds():
    claim = module.claim()
    assert claim.held and claim.figure > 97
