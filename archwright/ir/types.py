"""What flows along an edge: `Type` (shape and dtype), and `Attrs`, the immutable JSON values on a node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from archwright.errors import GraphError

DTYPES: dict[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Name -> bytes per element. The names are torch's without the prefix."""


class Type(NamedTuple):
    """Shape and dtype of a tensor. `shape` is a tuple of ints, `dtype` a key of `DTYPES`."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous tensor of this type."""
        return math.prod(self.shape) * DTYPES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


_PLAIN = frozenset((int, bool, str, type(None)))
"""Types whose values are held as they are."""


class Attrs(dict[str, Any]):
    """An immutable, hashable mapping of names to JSON values: the attributes of a node.

    Lists are held as tuples and mappings as `Attrs`; keys are sorted, so that equal attributes have one text.
    Numbers must be finite, except that infinities become the strings "inf" and "-inf" (which `float()` reads
    back). Raises `GraphError` for anything that is not a JSON value, NaN included.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        given = dict(values, **more)
        frozen = {}
        try:
            names = sorted(given)
        except TypeError:  # names of several types
            names = sorted(given, key=_require_str)
        for name in names:
            value = given[name]
            if type(name) is not str:
                _require_str(name)
            frozen[name] = value if type(value) in _PLAIN else _freeze(value, name)
        super().__init__(frozen)
        self._text = ""

    @property
    def text(self) -> str:
        """Canonical text: equal for equal attributes, different for different ones (1, 1.0 and True differ)."""
        if not self._text and self:
            self._text = repr(self)
        return self._text

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Attrs) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return self.text != other.text if isinstance(other, Attrs) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return Attrs, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attrs:
        return self

    def __copy__(self) -> Attrs:
        return self

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("attributes are immutable: make a new node instead")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse


def _require_str(key: Any) -> str:
    if not isinstance(key, str):
        raise GraphError(f"attribute names must be strings: got {key!r} of type {type(key).__name__}")
    return key


def _freeze(value: Any, name: str) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            raise GraphError(f"attribute '{name}' is NaN: expected a number, string, list or mapping")
        return "inf" if value > 0 else "-inf"
    if kind is tuple or kind is list:
        return tuple([_freeze(item, name) for item in value])
    if kind is Attrs:
        return value
    if isinstance(value, Mapping):
        return Attrs(value)
    for base in (bool, int, float, str):  # subclasses, such as numpy's float64 or an IntEnum
        if isinstance(value, base):
            return _freeze(base(value), name)
    if isinstance(value, (tuple, list)):
        return _freeze(tuple(value), name)
    raise GraphError(
        f"attribute '{name}' is of type {type(value).__name__}: attributes must be JSON values "
        "(null, boolean, number, string, list, mapping)"
    )


NO_ATTRS = Attrs()
