"""What holds for all tests: examples are the same in every run where CI is set, and no example has a time limit."""

import os

from hypothesis import settings

# a limit in milliseconds says more about what else the machine does than about the code
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
