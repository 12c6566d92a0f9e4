"""How a network is trained, as choices of the space: asked after the graph, so that both are searched together.

Names begin with "train.". A space's known shapes may set them; what they leave out is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from archwright.core.choose import Choose, Draw
from archwright.core.records import Record
from archwright.core.space import Spec
from archwright.data.data import Data
from archwright.ir import Graph
from archwright.kit.augment import IMAGES, SIGNALS

PREFIX = "train."
BATCHES = (16, 32, 64, 128, 256, 512)
LENGTHS = (0.1, 0.3, 1.0, 2.5)
USUAL = {f"{PREFIX}length": 1.0}
"""What a known shape has where it says nothing else."""


@dataclass(frozen=True)
class Settings(Record):
    """The training of one network.

    lr            greatest learning rate of the schedule
    weight_decay  decoupled, as a share of the learning rate
    batch         samples a step
    smoothing     of the class labels, as a share
    augment       name of an augmentation: see `archwright.kit.augment`
    optimiser     "adamw" or "sgd" (with momentum 0.9)
    length        of the training, as a share of what the plan of a search calls a full one
    """

    lr: float = 3e-3
    weight_decay: float = 1e-2
    batch: int = 64
    smoothing: float = 0.0
    augment: str = "none"
    optimiser: str = "adamw"
    length: float = 1.0

    @staticmethod
    def of(trace: Mapping[str, Any]) -> Settings:
        """The settings of a trace; what it does not say is as above."""
        known = {f.name for f in fields(Settings)}
        found = {name.removeprefix(PREFIX): v for name, v in trace.items() if name.startswith(PREFIX)}
        return Settings(**{name: value for name, value in found.items() if name in known})


def ask(choose: Choose, data: Data) -> Settings:
    """Choose how a network for these data is trained."""
    train = data.size("train")
    fitting = [b for b in BATCHES if b <= max(BATCHES[0], train // 4)]
    names = {"image": IMAGES, "signal": SIGNALS}.get(data.kind, ("none",))
    classes = data.task == "classification"
    lengths = (1.0,) if data.kind == "image" else LENGTHS  # images are trained for as long as there is time
    return Settings(
        lr=choose.number(f"{PREFIX}lr", 1e-4, 1e-1, log=True),
        weight_decay=choose.number(f"{PREFIX}weight_decay", 1e-6, 0.3, log=True),
        batch=choose.one_of(f"{PREFIX}batch", fitting),
        smoothing=choose.one_of(f"{PREFIX}smoothing", (0.0, 0.05, 0.1) if classes else (0.0,)),
        augment=choose.one_of(f"{PREFIX}augment", names),
        optimiser=choose.one_of(f"{PREFIX}optimiser", ("adamw", "sgd"), weights=(4, 1)),
        length=choose.one_of(f"{PREFIX}length", lengths),
    )


def with_training(program: Draw, data: Data) -> Draw:
    """The program of a space that also asks how its networks are trained."""

    def draw(choose: Choose, spec: Spec) -> Graph:
        graph = program(choose, spec)
        ask(choose, data)
        return graph

    return draw
