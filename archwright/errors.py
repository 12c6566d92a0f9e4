"""Every exception that archwright raises on purpose, each with when it is raised and what to do.

All of them descend from `ArchwrightError`, which is a `ValueError`: the caller's value was wrong, and the
message says what was got, what was expected and what to do. Mistakes of our own are plain assertions.
"""


class ArchwrightError(ValueError):
    """Base of all errors that are about the user's input. Catch this to catch them all."""


class GraphError(ArchwrightError):
    """A graph is not well formed: duplicate or unknown names, a cycle, a bad attribute. The message names the node."""


class TypeMismatch(ArchwrightError):
    """An op was given inputs of a shape or dtype that it cannot take. Change the node's inputs or its attributes."""


class UnknownOp(ArchwrightError):
    """A node names an op that this version does not have. The message suggests the nearest names."""


class FormatError(ArchwrightError):
    """A file is not what it should be: truncated, of another version or kind. Nothing of it was loaded."""


class WeightsError(ArchwrightError):
    """Weights and graph disagree: a tensor is missing, unexpected, or of another shape or dtype."""


class ConsentError(ArchwrightError):
    """A saved network holds opaque operations, which call torch operators by name.
    Load it with `allow_opaque=True` if you trust its origin."""


class CaptureError(ArchwrightError):
    """A module could not be captured, or its captured form does not compute the same. The message says where."""


class RewriteError(ArchwrightError):
    """A rewrite broke a guarantee of the engine (types changed, a slot still in use, a pass without end)."""


class EmitError(ArchwrightError):
    """A network could not be written in another format, or the written form does not compute the same."""


class MissingExtra(ArchwrightError):
    """An optional dependency is not installed. The message has the pip command."""


class UnknownPart(ArchwrightError):
    """A name stands for no part, or for several. The message suggests the nearest names."""


class ChoiceError(ArchwrightError):
    """A space made a choice that it may not (a name asked twice with different options, a trace that does not fit)."""


class DataError(ArchwrightError):
    """Data are not what was said: a missing column, a target with gaps, too few samples. The message says which."""
