"""A worker process: reads jobs as JSON lines from its input, writes results as JSON lines to its output.

The first line, {"data": folder, "memory": bytes}, says where the data are stored (`archwright.data.store`) and how much
may be allocated from then on (0: no limit). A worker uses one thread unless a job allows more. A candidate that
allocates too much, or crashes the process, takes nothing else with it. Ctrl-C is left to the process that searches;
the worker ends when its input does, and in the middle of a job soon after its parent (`archwright.flows.forkserver`).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from queue import SimpleQueue

ORPHANED = 0.5
"""Seconds between looks at whether the parent still lives."""


def prepare() -> None:
    """Import what jobs need. All that is alive then is left alone by the garbage collector, which is off until `work`:
    a fifth of the time would be spent on looking for garbage among imports, and forks share what nobody touches."""
    gc.disable()
    from archwright import ops
    from archwright.flows import jobs  # noqa: F401

    ops.table()  # reads the files of all ops: now, and not in the time of the first job
    gc.freeze()


def work(parent: int) -> None:
    """Do jobs until the input ends. Needs `prepare`, in this process or in the parent."""
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    # what libraries print must not get between the results
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import torch

    from archwright.data.store import stored
    from archwright.flows.jobs import Worker

    gc.enable()
    torch.set_num_threads(1)
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    line = lines.get()
    if not line:
        return
    first = json.loads(line)
    worker = Worker(stored(first["data"]))
    if first["memory"]:
        _limit(first["memory"])
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    answers.flush()
    while line := lines.get():
        job = json.loads(line)
        results = worker.run(job)
        torch.set_num_threads(1)
        answers.write(json.dumps({"results": results}) + "\n")
        answers.flush()


def _read(lines: SimpleQueue[str]) -> None:
    """Take what comes at once, the next job in the middle of one, so that no pipe is ever full; "" at the end."""
    for line in sys.stdin:
        lines.put(line)
    lines.put("")


def _follow(parent: int) -> None:
    """End this process when its parent has ended: then another one is its parent."""
    while os.getppid() == parent:
        time.sleep(ORPHANED)
    os._exit(1)


def _limit(memory: int) -> None:
    """Allocations beyond what is there now plus so many bytes fail."""
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[5]) * resource.getpagesize()  # data and stack
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + memory if most == resource.RLIM_INFINITY else min(now + memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
