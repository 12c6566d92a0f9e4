"""A worker process: reads jobs as JSON lines from its input, writes results as JSON lines to its output.

    python -m archwright.flows.worker FOLDER THREADS BYTES

FOLDER holds stored data (`archwright.data.store`), THREADS is how many it uses unless a job
allows more, BYTES how much memory it may allocate (0: no limit). A candidate that allocates too much, or crashes the
process, takes nothing else with it. Ctrl-C is left to the process that started it; the worker ends when its input does,
and in the middle of a job soon after that process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

ORPHANED = 0.5
"""Seconds between looks at whether the parent still lives."""


def main(folder: str, threads: int, memory: int) -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    # what libraries print must not get between the results
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    from archwright.data.store import stored
    from archwright.flows.jobs import Worker

    torch.set_num_threads(threads)
    worker = Worker(stored(folder))
    if memory:
        _limit(memory)
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        results = worker.run(job)
        torch.set_num_threads(threads)
        answers.write(json.dumps({"results": results}) + "\n")
        answers.flush()


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
    resource.setrlimit(resource.RLIMIT_DATA, (now + memory, now + memory))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
