"""How long a network takes for a sample here: measured with ONNX Runtime, one thread, the median of many runs."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archwright.core.records import Record
from archwright.errors import EmitError, FormatError
from archwright.net.net import Net, example

_MOST_RUNS = 2000
_FEWEST_RUNS = 3


@dataclass(frozen=True)
class Latency(Record):
    """What was measured.

    seconds    of one run, the median
    low, high  quartiles of the runs, seconds
    runs       how many were timed
    batch      samples in a run
    threads    that ONNX Runtime had
    """

    seconds: float
    low: float
    high: float
    runs: int
    batch: int = 1
    threads: int = 1


def latency(
    net: Net | str | os.PathLike[str], *, batch: int = 1, threads: int = 1, seconds: float = 0.3
) -> Latency:  # fmt: skip
    """Measure a net, or an .onnx file, on random inputs.

    seconds  how long is measured in all, after the model is loaded; a tenth of it goes to warming up. Slow networks run
             a few times at least

    Raises `EmitError` if the net has no form that ONNX Runtime takes, `FormatError` if the file is not an ONNX model.
    """
    if batch < 1 or threads < 1 or not seconds > 0:
        raise FormatError(f"got batch={batch}, threads={threads}, seconds={seconds}: expected numbers above 0")
    if isinstance(net, Net):
        from archwright.exchange.onnx import to_onnx

        with tempfile.TemporaryDirectory(prefix="archwright-latency-") as folder:
            path = to_onnx(net, Path(folder) / "net.onnx", check=False).path
            try:
                session = _session(path, threads)
            except FormatError as error:
                raise EmitError(str(error)) from None
            feeds = {node.name: x for node, x in zip(net.graph.inputs, example(net.graph, batch), strict=True)}
            arrays = {name: _plain(x) for name, x in feeds.items()}
            return _measure(session, arrays, batch, threads, seconds)
    session = _session(Path(net), threads)
    return _measure(session, {i.name: _made_up(i, batch) for i in session.get_inputs()}, batch, threads, seconds)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not path.is_file():
        raise FormatError(f"{path} is not there, expected an ONNX file")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        told = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is no model that ONNX Runtime takes: {told}") from None


def _measure(session: Any, feeds: dict[str, Any], batch: int, threads: int, seconds: float) -> Latency:
    taken = {i.name for i in session.get_inputs()}
    feeds = {name: array for name, array in feeds.items() if name in taken}
    run, clock = session.run, time.perf_counter
    took: list[float] = []
    collecting = gc.isenabled()
    gc.disable()  # a collection in between would be counted as the network's
    try:
        run(None, feeds)  # the first run allocates
        end = clock() + 0.1 * seconds
        while clock() < end:
            run(None, feeds)
        end = clock() + 0.9 * seconds
        while len(took) < _FEWEST_RUNS or (len(took) < _MOST_RUNS and clock() < end):
            start = clock()
            run(None, feeds)
            took.append(clock() - start)
    except Exception as error:
        raise EmitError(f"ONNX Runtime fails on random inputs: {' '.join(str(error).split())[:200]}") from None
    finally:
        if collecting:
            gc.enable()
    low, middle, high = np.quantile(took, (0.25, 0.5, 0.75)).tolist()
    return Latency(middle, low, high, len(took), batch, threads)


def _plain(x: Any) -> Any:
    import torch

    return (torch.view_as_real(x) if x.is_complex() else x).numpy()


def _made_up(argument: Any, batch: int) -> Any:
    """Random numbers for an argument of a model; open dimensions are the batch. Codes are 0, which every table has."""
    shape = [n if isinstance(n, int) else batch for n in argument.shape]
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise FormatError(f"input '{argument.name}' is {argument.type}, expected numbers")
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
    "tensor(int16)": np.int16, "tensor(bool)": np.bool_,
}  # fmt: skip
