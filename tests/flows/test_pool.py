"""Workers: results come back whatever happens to a process, and nothing is left running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from archwright import ops
from archwright.data.data import Data
from archwright.data.open import open_data
from archwright.data.store import store
from archwright.errors import ArchwrightError
from archwright.flows.interrupts import Interrupts
from archwright.flows.jobs import Job
from archwright.flows.pool import STOPPED, Done, Here, Pool, memory_for_each
from archwright.kit.settings import Settings
from tests.flows.process import alive, children


def job(number: int = 0, *, steps: int = 12, wide: int = 0, **more: Any) -> Job:
    """A small job; `wide`: numbers in the square that a sample's activations take."""
    g = ops.edit()
    x = g.input("x", (None, 4))
    y = g.add("linear", x, out=wide or 8, name="hidden")
    if wide:
        y = g.add("unsqueeze", y, dim=2)
        y = g.add("mean", g.add("matmul", y, g.add("permute", y, dims=[0, 2, 1])), dim=[2])
    graph = g.finish(g.add("linear", y, out=3, name="head"))
    candidate = {"number": number, "settings": asdict(Settings(batch=16)), "bars": []}
    return {"graph": graph.to_json(), "candidates": [candidate], "folds": 0, "steps": steps, "seconds": None, "seed": 1,
            "metrics": ["error"], **more}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("iris")


@pytest.fixture(scope="module")
def folder(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(store(data, tmp_path_factory.mktemp("data") / "iris"))


@pytest.fixture
def pool(folder: Path) -> Iterator[Pool]:
    made = Pool(1)
    made.open(folder, memory=500_000_000)
    yield made
    made.stop()


def waited(pool: Pool | Here, seconds: float = 120.0) -> list[Done]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := pool.wait(0.5):
            return found
    raise TimeoutError


def test_here_and_there_give_the_same(data: Data, pool: Pool) -> None:
    here = Here(data)
    assert here.free == 1 and here.wait(0.0) == [] and pool.wait(0.01) == []
    results = []
    for place in (here, pool):
        place.send(job(7))
        assert place.free == 0
        (sent, found), = waited(place)
        assert sent["candidates"][0]["number"] == 7 and place.free == 1
        results.append({k: v for k, v in found[0].items() if k != "seconds"})
    assert results[0] == results[1] and results[0]["state"] == "complete" and results[0]["steps"] == 12


def test_what_a_worker_survives_and_what_not(pool: Pool) -> None:
    pool.send(job(wide=20_000))  # 16 rows of 1.6 GB
    (_, found), = waited(pool)
    assert found[0]["state"] == "failed" and found[0]["reason"].startswith("out of memory"), found
    process, = pool._idle
    pool.send(job(1, steps=10**7))
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    (_, found), = waited(pool)
    assert found[0]["state"] == "failed" and "was killed" in found[0]["reason"]
    pool.send(job(2))  # another has taken its place
    (_, found), = waited(pool)
    assert found[0]["state"] == "complete"
    pool.send({**job(3), "graph": "{}"})
    (_, found), = waited(pool)
    assert found[0]["state"] == "failed" and found[0]["reason"]


def test_a_second_job_follows_the_first(pool: Pool) -> None:
    assert (pool.free, len(pool.spare)) == (1, 0)
    pool.send(job(1, steps=200))
    assert (pool.free, len(pool.spare)) == (0, 1)
    pool.send(job(2, notes="x" * 300_000))  # more than a pipe holds: it is taken at once none the less
    assert (pool.free, len(pool.spare)) == (0, 0)
    with pytest.raises(ArchwrightError, match="each worker process has two jobs"):
        pool.send(job(3))
    found = waited(pool)
    found += waited(pool) if len(found) < 2 else []
    assert [sent["candidates"][0]["number"] for sent, _ in found] == [1, 2]
    assert all(results[0]["state"] == "complete" for _, results in found) and (pool.free, len(pool.spare)) == (1, 0)


def test_a_second_job_outlives_the_process(pool: Pool) -> None:
    pool.send(job(0))
    waited(pool)
    pool.send(job(1, steps=10**7))
    pool.send(job(2))
    process, = list(pool._busy)
    os.kill(process.pid, signal.SIGKILL)
    (_, found), = waited(pool)
    assert found[0]["number"] == 1 and "was killed" in found[0]["reason"]
    (_, found), = waited(pool)
    assert found[0]["number"] == 2 and found[0]["state"] == "complete"
    pool.send(job(3, steps=10**7))
    pool.send(job(4))
    assert [results[0]["reason"] for _, results in pool.abandon()] == [STOPPED] * 2 and pool.free == 1


def test_jobs_are_abandoned(data: Data, pool: Pool) -> None:
    here = Here(data)
    for place in (here, pool):
        place.send(job(5, steps=10**7))
        (sent, found), = place.abandon()
        assert sent["candidates"][0]["number"] == 5
        assert found == [{"number": 5, "state": "pruned", "reason": STOPPED, "curve": [], "seconds": 0.0, "steps": 0}]
        assert place.free == 1 and place.abandon() == []
    pool.send(job(6))
    assert waited(pool)[0][1][0]["state"] == "complete"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_left_running(folder: Path, begun: bool) -> None:
    before = set(children(os.getpid()))
    pool = Pool(2)
    pool.open(folder)
    for _ in range(2):
        pool.send(job(steps=10**7))
    server, = set(children(os.getpid())) - before
    if begun:
        end = time.monotonic() + 60
        while len(children(server)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
    workers = children(server)
    assert len(workers) == 2 * begun
    pool.stop()
    assert set(children(os.getpid())) <= before
    assert not any(alive(pid) for pid in workers)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_server_is_replaced(pool: Pool) -> None:
    """It may be the one that the system kills when memory is short: its workers end with it."""
    pool.send(job(0))
    waited(pool)
    pool.send(job(1, steps=10**7))
    worker, = [process.pid for process in pool._busy]
    os.kill(pool._server._process.pid, signal.SIGKILL)
    (_, found), = waited(pool)
    assert found[0]["state"] == "failed" and "was killed" in found[0]["reason"]
    pool.send(job(2))
    assert waited(pool)[0][1][0]["state"] == "complete"
    assert not alive(worker)


def test_a_worker_cannot_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    pool = Pool(1)
    pool.open(tmp_path)
    try:
        pool.send(job())
        (_, found), = waited(pool)
        assert found[0]["state"] == "failed" and found[0]["reason"].endswith("ImportError: no torch here")
        with pytest.raises(ArchwrightError, match="no torch here"):
            pool.send(job())
    finally:
        pool.stop()


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    pool = Pool(1)
    pool.open(tmp_path / "nothing")
    try:
        pool.send(job())
        (_, found), = waited(pool)
        assert found[0]["state"] == "failed" and "ended with code 1" in found[0]["reason"]
        assert pool.free == 0
        with pytest.raises(ArchwrightError, match="no worker process could be started"):
            pool.send(job())
    finally:
        pool.stop()


def test_the_last_words_of_a_worker_are_the_reason(folder: Path) -> None:
    """However much it said before: more than a pipe holds."""
    pool = Pool(1)
    pool.open(folder)
    try:
        pool.send(job())
        waited(pool)
        process = pool._idle[0]
        process._said.write(b"x" * 300_000 + b"\nlast words\n")
        process._said.flush()
        os.kill(process.pid, signal.SIGTERM)
        pool.send(job())
        assert "last words" in waited(pool)[0][1][0]["reason"]
    finally:
        pool.stop()


def test_memory_is_shared() -> None:
    assert memory_for_each(1) >= memory_for_each(4) >= 0


# --------------------------------------------------------------------------------------------------------------- Ctrl-C
def test_interrupts() -> None:
    former = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt), interrupts.open():
            raise AssertionError("what was asked before is raised first")
        assert interrupts.take() and not interrupts.asked and not interrupts.take()
        with pytest.raises(KeyboardInterrupt), interrupts.open():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)  # the third time
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is former
    found: list[bool] = []

    def elsewhere() -> None:
        with Interrupts() as other, other.open():
            found.append(other.asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False] and signal.getsignal(signal.SIGINT) is former


def test_a_training_here_is_stopped_in_its_middle(data: Data) -> None:
    with Interrupts() as interrupts:
        here = Here(data, interrupts)
        here.send(job(3, steps=10**7))
        threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            here.wait(0.0)
        assert here.abandon()[0][1][0]["state"] == "pruned"
