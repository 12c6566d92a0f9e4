"""The parts: `archwright.parts.known("block")`, `archwright.parts.load("mlp_mixer", "block")`.

One file a part in the folder of its kind; nothing is imported until it is used. See docs/guide/add-your-own-part.md.
"""

from archwright.core.registry import entry, find, load, module, use
from archwright.core.registry import parts as known

__all__ = ["entry", "find", "known", "load", "module", "use"]
