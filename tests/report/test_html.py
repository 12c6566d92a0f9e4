"""The report: whole for any record, nothing loaded from elsewhere, nothing of the user's data taken for markup."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest

from archwright.report.html import render
from tests.report.runs import network, record

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&'</svg></title>"
VOID = {"meta", "img", "br", "hr", "input", "link"}
SECTIONS = ["headline", "search", "quality", "network", "costs", "trials", "data", "load", "facts"]


class Page(HTMLParser):
    """What a browser would see: tags in order, texts, sections; fails where tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.script = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.script += data
        else:
            self.texts.append(data)

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split()).replace("\u00a0", " ")


def charts(page: Page) -> list[str]:
    return [str(a["aria-label"]).split(".")[0].split(" of ")[0] for a in page.find("svg") if a.get("class", "") != ""
            and "chart" in str(a.get("class"))]  # fmt: skip


def test_sections_in_reading_order() -> None:
    page = Page(render(record(), network()))
    assert [a["id"] for a in page.find("section")] == SECTIONS
    assert charts(page) == ["Error against parameters", "Best so far over time", "Learning curves", "Confusion matrix",
                            "Calibration"]  # fmt: skip
    assert "wrong in 2.78 % of cases on 36 test samples" in page.text
    assert "gives 66 %" in page.text  # the trivial predictor
    assert "95 % interval 0.49 – 14.2 %" in page.text
    wanted = ["195", "780 B", "12 µs", "limit 20,000", "1 min 1 s", "column 'notes' is text", "depth", "Bundle.load",
              "the loss is not finite", "session = onnxruntime.InferenceSession", "archwright predict"]  # fmt: skip
    assert [shown for shown in wanted if shown not in page.text] == []


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"task": "regression"}, ["Predicted against true", "Residuals"]),
        ({"objectives": ("error",)}, ["Error against training time"]),
        ({"objectives": ("params", "error", "latency")}, ["Error against parameters", "Error against latency"]),
        ({"names": tuple(f"class {i}" for i in range(50))}, ["Confusion matrix"]),
    ],
)
def test_charts_follow_the_record(changed: dict[str, Any], wanted: list[str]) -> None:
    page = Page(render(record(**changed), network()))
    assert set(wanted) <= set(charts(page))


def test_of_many_classes_the_worst_pairs_are_listed() -> None:
    page = Page(render(record(names=tuple(f"class {i}" for i in range(50))), network()))
    assert "Most often mistaken" in page.text
    assert "Most often mistaken" not in Page(render(record(), network())).text


def test_of_numbers() -> None:
    page = Page(render(record("regression"), network(outputs=1)))
    assert "predicts “species” with a root mean squared error of 0.0278" in page.text
    assert "numbers = bundle.predict(X)" in page.text and "predict_proba" not in page.text


def test_nothing_is_loaded() -> None:
    text = render(record(), network())
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "use", "image")
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert not (attrs.get(name) or "").startswith(("http", "//", "data"))
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|import\(", page.script)
    policy = next(a["content"] for a in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


def evil(value: Any) -> Any:
    """Every text, key and name replaced or followed by what wants to be markup."""
    if isinstance(value, dict):
        return {(k if k in KEYS else k + EVIL): evil(v) for k, v in value.items()}
    if isinstance(value, list):
        return [evil(v) for v in value]
    return value + EVIL if isinstance(value, str) and value not in KEYS else value


_WORDS = """
    name kind task samples train valid test inputs features classes target split notices trial state values seconds
    trace key reason confusion calibration per_class class precision recall count confidence accuracy error params unit
    direction min share flops bytes latency_s table classification training curve
"""
KEYS = {*record(), *_WORDS.split()}
"""What the reader of a record looks for; everything else is the user's."""


def test_what_the_user_named_is_never_markup() -> None:
    run = evil(record())
    assert run["data"]["classes"][0] == "a" + EVIL and run["winner"]["trace"]["depth" + EVIL] == 2
    run["onnx"], inputs = None, [("num" + EVIL, (None, 3), "float32")]
    text = render(run, network(), inputs)
    page = Page(text)
    assert len(page.find("script")) == 1 and not page.find("img")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "alert(1)" not in page.script and "alert(1)" in page.text
    assert '\\"' in page.text  # within the snippet's strings, too


def test_no_two_elements_have_one_id() -> None:
    ids = [attrs["id"] for _, attrs in Page(render(record(), network())).tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def broken() -> list[dict[str, Any]]:
    whole = record()
    lacking = [{k: v for k, v in whole.items() if k != key} for key in whole]
    empty = [{**whole, key: kind} for key in whole for kind in (None, {}, [])]
    odd = [
        {
            **whole,
            "scatter": [{"trial": 1}, {"values": {"error": "nan"}}, None],
            "front": [{}],
            "test": {"error": "nan"},
        },
        {**whole, "best_so_far": [[0.0, "inf"], [1.0, 0.5]], "curves": {"0": [[0.5, "nan"]], "1": []}},
        {**whole, "test": {"roc_auc": 0.9}, "objectives": [{"name": "roc_auc", "unit": "1", "direction": "max"}]},
        {**whole, "scatter": [{"trial": 0, "values": {"error": 0.0, "params": 0}, "seconds": 0}], "front": []},
        {**whole, "detail": {"confusion": [[1, 2]], "calibration": [{"count": 0}]}},
        {**whole, "detail": {"true": [[1, 2], [3, 4]], "predicted": [[1, 2], [3, 4]]}},
    ]
    return [{}, *lacking, *empty, *odd]


def test_any_key_may_be_absent_or_odd() -> None:
    net = network()
    for run in broken():
        page = Page(render(run, net))
        assert not {"None", "nan", "inf"} & set(page.text.split())
        assert "network" in [a["id"] for a in page.find("section")]


def test_without_onnx_the_reason_is_said() -> None:
    page = Page(render({**record(), "onnx": "no form in ONNX for opaque"}, network()))
    assert "There is no model.onnx: no form in ONNX for opaque" in page.text


def test_small_and_quick_for_a_thousand_trials() -> None:
    run, net = record(trials=1000), network()
    render(record(), net)
    began = time.process_time()
    text = render(run, net)
    assert time.process_time() - began < 1
    assert len(text.encode()) < 500_000
    assert len(re.findall(r"<circle", text)) >= 1000
