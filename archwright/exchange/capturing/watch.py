"""What torch.export does not follow by itself, watched while it runs: `.data`, and numbers that are known beforehand.

Under export every tensor is a symbol, also those that do not depend on the inputs: a buffer that says "initialised", or
the stride of a convolution kept as a tensor. `Watch` carries the numbers of such small tensors along, so that a module
may ask for them. What it learns holds for the module as it is when it is captured; the proof sees to the rest.

Two questions about the inputs are answered as the example answers them, and the net checks at every run that the answer
is still the same: whether a mask is true anywhere or everywhere, and what a mask of one dimension picks (the edges that
are not loops). `Answers` takes them down, in a run of the module on the example.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

_ASKS = frozenset(("item", "__bool__", "__int__", "__float__", "__index__", "tolist"))
"""Functions that ask a tensor for its numbers."""

_MAKES = frozenset(("tensor", "as_tensor", "zeros", "ones", "full", "arange", "scalar_tensor"))
"""Functions that make a tensor from plain numbers."""

_DRAWS = ("rand", "bernoulli", "normal", "uniform", "exponential", "dropout", "multinomial", "geometric", "empty")
"""Parts of the names of functions whose result is not known."""

_SIZED = frozenset(
    ("pad", "view", "reshape", "expand", "repeat", "narrow", "split", "interpolate", "new_zeros", "new_full",
     "__getitem__")
)  # fmt: skip
"""Functions that torch gives sizes as tensors, and that then ask for their numbers where it can't be seen."""

_SMALL = 256
"""Greatest number of elements of a tensor that is carried along."""


CHECK = "archwright: "
"""How the messages of those assertions begin that a net is to keep."""


def _mask_of(name: str, args: Any) -> Tensor | None:
    """The one-dimensional mask that picks elements out of a tensor, or places for other elements, if there is one."""
    if name not in ("__getitem__", "__setitem__"):
        return None
    if name == "__setitem__" and not (isinstance(args[2], Tensor) and args[2].dim() > 0):
        return None  # one number for all places needs no count of them
    items = args[1] if isinstance(args[1], tuple) else (args[1],)
    masks = [item for item in items if isinstance(item, Tensor) and item.dtype == torch.bool]
    return masks[0] if len(masks) == 1 and masks[0].dim() == 1 else None


class Answer(NamedTuple):
    """What a module was told about a mask, and at which line of its code. `value` is the whole mask where that is what
    counts."""

    where: tuple[str, int]
    value: bool | tuple[bool, ...]


_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def _line() -> tuple[str, int]:
    """The file and line that asks: of the last frame that is neither torch's nor ours."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)


class Answers(TorchFunctionMode):
    """Takes down what a module is told about masks, in order: True or False, the whole mask where it is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Answer] = []
        self._summaries: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        mask = _mask_of(name, args)
        if mask is not None:
            picked = True if bool(mask.all()) else tuple(mask.tolist()) if bool(mask.any()) else False
            self.found.append(Answer(_line(), picked))
        made = func(*args, **(kwargs or {}))
        if name in ("any", "all") and isinstance(made, Tensor) and made.dim() == 0:
            self._summaries.append(made)
        elif name in ("__bool__", "item") and any(args[0] is value for value in self._summaries):
            self.found.append(Answer(_line(), bool(made)))
        return made


class Watch(TorchFunctionMode):
    """While it is entered: `x.data` is `x.detach()`, setting it copies; numbers known beforehand are plain numbers.

    answers  what the module was told about masks when it ran on the example
    """

    def __init__(self, module: nn.Module, answers: Sequence[Answer] = ()) -> None:
        super().__init__()
        self.answers = list(answers)
        self.summaries: list[Tensor] = []
        self.held = [  # where small buffers are kept (export puts symbols there), and their numbers
            (child._buffers, name, buffer.detach().clone())
            for child in module.modules()
            for name, buffer in child._buffers.items()
            if buffer is not None and _small(buffer)
        ]
        self.known: dict[int, tuple[Tensor, Tensor]] = {}  # id of a symbol -> (it, to keep it alive; its numbers)
        self.drawn: list[Tensor] = []
        self.never: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            if func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
                return args[0].detach()
            return func(*args, **kwargs)
        if name == "__set__" and func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            with torch.no_grad():
                args[0].copy_(args[1])
            return None
        if name in _ASKS:
            if name == "__bool__" and any(args[0] is value for value in self.never):
                return False
            if name in ("__bool__", "item") and any(args[0] is value for value in self.summaries):
                answer = self._answer()
                if answer is not None:
                    _keep(args[0] if answer else args[0].logical_not(), "a mask is not what it was when captured")
                    return answer
            numbers = self._numbers(args[0])
            if numbers is not None:
                return _plainly(getattr(numbers, name))
        mask = _mask_of(name, args)
        if mask is not None:
            answer = self._answer()
            if answer is not None:
                part: Any = slice(None) if answer is True else slice(0, 0)
                same = mask.all() if answer is True else mask.any().logical_not()
                if isinstance(answer, tuple):
                    part = torch.tensor([i for i, picked in enumerate(answer) if picked])
                    same = (mask == torch.tensor(answer)).all()
                _keep(same, "a mask does not pick what it did when captured")
                items = args[1] if isinstance(args[1], tuple) else (args[1],)
                args = (args[0], tuple([part if item is mask else item for item in items]), *args[2:])
        if name in _SIZED and (self.known or self.held):
            args = (*args[:1], *[self._plain(value) for value in args[1:]])
        made = func(*args, **kwargs)
        if name in ("any", "all") and isinstance(made, Tensor) and made.dim() == 0:
            self.summaries.append(made)
        self._follow(func, name, args, kwargs, made)
        return made

    def _answer(self) -> bool | tuple[bool, ...] | None:
        """The next answer that was given at this line. Modules may ask less while they are exported."""
        where = _line()
        for index, answer in enumerate(self.answers):
            if answer.where == where:
                del self.answers[: index + 1]
                return answer.value
        return None

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, made: Any) -> None:
        """Carry the numbers of a call's result along, if those of its arguments are known."""
        if name == "__setitem__" or kwargs.get("out") is not None:
            self.known.pop(id(args[0] if args else None), None)
            return
        several = list(made) if isinstance(made, (tuple, list)) else [made]
        if not all(isinstance(value, Tensor) and _small(value) for value in several):
            return
        if name == "rand":
            self.drawn.append(made)
        elif name in ("lt", "__lt__") and isinstance(args[1], (int, float)) and args[1] <= 0:
            # "leave this layer out if rand() < 0" never does
            self.never += [made for value in self.drawn if args[0] is value]
        for value in several:
            self.known.pop(id(value), None)
        if any(part in name for part in _DRAWS):
            return
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        numbers = [self._numbers(value) for value in tensors]
        if any(value is None for value in numbers) or (not tensors and name not in _MAKES):
            return
        rest = iter(numbers)
        flat = [next(rest) if isinstance(value, Tensor) else value for value in flat]
        inner, named = pytree.tree_unflatten(flat, spec)
        try:
            result = _plainly(lambda: func(*[v.clone() if isinstance(v, Tensor) else v for v in inner], **named))
        except Exception:  # whatever it is: then the numbers are not known
            return
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        for value, found in zip(several, results, strict=False):
            if isinstance(found, Tensor):
                self.known[id(value)] = (value, found)

    def _plain(self, value: Any) -> Any:
        """An argument with whole numbers in the place of tensors that are known to hold them."""
        if isinstance(value, Tensor) and value.dim() == 0 and value.dtype == torch.int64:
            numbers = self._numbers(value)
            return value if numbers is None else int(_plainly(numbers.item))
        if isinstance(value, (list, tuple)):
            return type(value)([self._plain(item) for item in value])
        if isinstance(value, slice):
            return slice(*[self._plain(item) for item in (value.start, value.stop, value.step)])
        return value

    def _numbers(self, value: Tensor) -> Tensor | None:
        """The numbers of a tensor, if they are known: a small buffer, or made of such."""
        found = self.known.get(id(value))
        if found is not None:
            return found[1]
        return next((numbers for holder, name, numbers in self.held if holder.get(name) is value), None)


def _keep(condition: Tensor, message: str) -> None:
    """An assertion for the net to keep."""
    torch._assert_async(condition, CHECK + message)


def _small(value: Tensor) -> bool:
    """Whether a tensor has few elements, and certainly so."""
    return all(type(n) is int for n in value.shape) and value.numel() <= _SMALL


def _plainly(run: Any) -> Any:
    """Run something on tensors with numbers, outside of whatever torch.export has put around."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        return run()
