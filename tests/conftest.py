"""What holds for all tests: examples are the same in every run where CI is set, and no example has a time limit."""

import os
import signal

from hypothesis import settings

# a limit in milliseconds says more about what else the machine does than about the code
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# shells start what runs in the background with Ctrl-C ignored; tests that press it would wait for ever
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
