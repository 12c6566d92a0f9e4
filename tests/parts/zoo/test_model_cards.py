"""Model cards: groups against pandas, intervals against SciPy, front matter against the hub's reader."""

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from archwright.core.checks import toys
from archwright.core.checks.zoo import RUN, sections
from archwright.core.records import MISSING
from archwright.core.registry import find, module
from archwright.errors import DataError, FormatError
from archwright.kit import train

zoo = module(find("zoo/model_cards"))


@pytest.fixture(scope="module")
def net():
    return toys.net("mlp", toys.data("table"))


def recorded(seed=0):
    """Outcomes of random samples by three factors, and the same as a table."""
    r = np.random.default_rng(seed)
    values = {"a": "xyz", "b": "uv", "c": "st"}
    frame = pd.DataFrame({name: r.choice(list(letters), 300) for name, letters in values.items()})
    frame["right"] = (r.random(300) < 0.8).astype(int)
    groups = [
        {"group": dict(zip("abc", key, strict=True)), "right": part["right"].tolist()}
        for key, part in frame.groupby(list("abc"))
    ]
    return groups, frame


def test_groups_are_those_of_pandas_and_weigh_up_to_the_overall_accuracy():
    groups, frame = recorded()
    found = zoo.tables(groups)
    assert set(found) == {(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")}
    overall = Fraction(int(frame["right"].sum()), len(frame))
    for names, cells in found.items():
        assert sum(Fraction(c.right, c.count) * c.count for c in cells) / len(frame) == overall
        if names:
            expected = frame.groupby(list(names))["right"].agg(["sum", "count"])
            assert [(c.right, c.count) for c in cells] == list(expected.itertuples(index=False, name=None))


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (37, 50), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_wilsons(right, count, level):
    low, high = zoo.Group((), right, count).interval(level)
    expected = binomtest(right, count).proportion_ci(level, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_sample_without_a_factor_is_a_group_of_its_own_and_no_sample_is_no_accuracy():
    groups = [{"group": {"a": "x"}, "right": [1, 0]}, {"group": {}, "right": [1]}, {"group": {"a": "y"}, "right": []}]
    found = zoo.tables(groups)
    cells = [(c.values, c.right, c.count) for c in found["a",]]
    assert cells == [((zoo.NOWHERE,), 1, 1), (("x",), 1, 2), (("y",), 0, 0)]
    assert np.isnan(found["a",][2].accuracy) and found["a",][2].interval() == (0, 1)


def test_outcomes_are_what_the_net_gets_right(net):
    data = toys.data("table")
    half = np.arange(len(data.target)) % 2
    groups = zoo.outcomes(net, data, {"half": half, "sign": np.sign(data.inputs[0][:, 0])})
    (everything,) = zoo.tables(groups)[()]
    assert everything.count == data.size("test")
    assert everything.accuracy == pytest.approx(1 - train.evaluate(net, data))
    counts = {g.values[0]: g.count for g in zoo.tables(groups)["half",]}
    assert counts == {str(h): int((half[data.splits["test"]] == h).sum()) for h in (0, 1)}
    with pytest.raises(DataError, match="shape"):
        zoo.outcomes(net, data, {"half": half[:5]})
    with pytest.raises(DataError, match="classification"):
        regression = toys.data("regression")
        zoo.outcomes(toys.net("mlp", regression), regression, {})


def test_the_card_has_the_nine_sections_and_front_matter_that_the_hub_reads(net):
    from huggingface_hub import ModelCard

    text = zoo.card(net, RUN)
    assert tuple(sections(text)) == zoo.SECTIONS
    read = ModelCard(text).data
    assert read.license == "apache-2.0" and read.library_name == "archwright" and read.model_name == "toy classifier"
    (result,) = read.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("error", 0.125, "table")
    assert "| old | f | 2 | 1.000 | 0.342 to 1.000 |" in text and "### By age and sex" in text


def test_the_saved_run_gives_the_same_bytes(net):
    text = zoo.card(net, RUN)
    assert zoo.card(net, json.loads(json.dumps(RUN))) == text
    assert zoo.card(net, json.loads(json.dumps(RUN, sort_keys=True))) == text
    assert zoo.card(net, {**RUN, "groups": RUN["groups"][::-1]}) == text


def test_empty_sections_are_flagged(net):
    bare = zoo.card(net, {})
    assert zoo.missing(bare) == zoo.SECTIONS[1:]
    assert all(text.strip() == MISSING for name, text in sections(bare).items() if name != "Model details")
    assert zoo.missing(zoo.card(net, RUN)) == ("Ethical considerations",)
    full = {**RUN, "ethics": "Do not use on people.", "recommendations": ["retrain yearly"], "not_for": ["medicine"]}
    text = zoo.card(net, full)
    assert zoo.missing(text) == () and "- Do not use on people." in text and "Not for:\n\n- medicine" in text


def test_a_group_that_is_clearly_worse_is_named(net):
    run = {"groups": [{"group": {"age": "old"}, "right": [0] * 30}, {"group": {"age": "young"}, "right": [1] * 90}]}
    assert "Less right than on average for age old: 0.000." in zoo.card(net, run)


def test_what_is_recorded_cannot_open_sections_or_columns(net):
    text = zoo.card(net, {"name": "a\n## b", "description": "x\n---\n## c", "uses": ["u\n\n## d"],
                          "groups": [{"group": {"a|b": "c|d"}, "right": [1]}]})  # fmt: skip
    assert tuple(sections(text)) == zoo.SECTIONS
    assert "| c\\|d | 1 |" in text


def test_numbers_that_are_none_are_missing(net):
    run = {"metrics": [{"name": "error", "value": float("nan")}, {"name": "loss", "value": None}, {"value": 1.0}]}
    text = zoo.card(net, run)
    assert "nan" not in text.split() and "None" not in text.split() and text.count("| error |") == 1


@pytest.mark.parametrize("entry", [{"right": [1]}, {"group": {}, "right": [2]}, {"group": {}, "right": "1"}, 3])
def test_groups_of_another_form_are_an_error(net, entry):
    with pytest.raises(FormatError, match="recorded group"):
        zoo.card(net, {"groups": [entry]})


def test_a_level_is_a_share(net):
    with pytest.raises(FormatError, match="level"):
        zoo.card(net, RUN, level=1.0)


def test_the_claim_holds():
    assert zoo.claim().held
