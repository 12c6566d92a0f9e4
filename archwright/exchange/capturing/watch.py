"""What torch.export does not follow by itself, watched while it runs: `.data`, and numbers that are known beforehand.

Under export every tensor is a symbol, also those that do not depend on the inputs: a buffer that says "initialised", or
the stride of a convolution kept as a tensor. `Watch` carries the numbers of such small tensors along, so that a module
may ask for them. What it learns holds for the module as it is when it is captured; the proof sees to the rest.
"""

from __future__ import annotations

from typing import Any

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


class Watch(TorchFunctionMode):
    """While it is entered: `x.data` is `x.detach()`, setting it copies; numbers known beforehand are plain numbers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
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
            numbers = self._numbers(args[0])
            if numbers is not None:
                return _plainly(getattr(numbers, name))
        if name in _SIZED and (self.known or self.held):
            args = (*args[:1], *[self._plain(value) for value in args[1:]])
        made = func(*args, **kwargs)
        self._follow(func, name, args, kwargs, made)
        return made

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, made: Any) -> None:
        """Carry the numbers of a call's result along, if those of its arguments are known."""
        if name == "__setitem__" or kwargs.get("out") is not None:
            self.known.pop(id(args[0] if args else None), None)
            return
        if not isinstance(made, Tensor) or not _small(made):
            return
        if name == "rand":
            self.drawn.append(made)
        elif name in ("lt", "__lt__") and isinstance(args[1], (int, float)) and args[1] <= 0:
            # "leave this layer out if rand() < 0" never does
            self.never += [made for value in self.drawn if args[0] is value]
        if any(part in name for part in _DRAWS):
            self.known.pop(id(made), None)
            return
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        numbers = [self._numbers(value) for value in tensors]
        if any(value is None for value in numbers) or (not tensors and name not in _MAKES):
            self.known.pop(id(made), None)
            return
        rest = iter(numbers)
        flat = [next(rest) if isinstance(value, Tensor) else value for value in flat]
        inner, named = pytree.tree_unflatten(flat, spec)
        try:
            result = _plainly(lambda: func(*[v.clone() if isinstance(v, Tensor) else v for v in inner], **named))
        except Exception:  # whatever it is: then the numbers are not known
            return
        if isinstance(result, Tensor):
            self.known[id(made)] = (made, result)

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


def _small(value: Tensor) -> bool:
    """Whether a tensor has few elements, and certainly so."""
    return all(type(n) is int for n in value.shape) and value.numel() <= _SMALL


def _plainly(run: Any) -> Any:
    """Run something on tensors with numbers, outside of whatever torch.export has put around."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        return run()
