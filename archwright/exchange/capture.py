"""`capture`: any PyTorch module as a net, proven.

    module  --export-->  calls of torch operators, in both modes and at two batch sizes   (capturing/export, program)
            --lower--->  drafts of our nodes, constants folded, writes made pure          (capturing/lower, rules_*)
            --merge--->  one graph for both modes                                         (capturing/merge)
            --finish-->  slots and names as in the module's state                         (capturing/finish)
            --prove--->  the same outputs, and the same buffers after training            (capturing/proof)
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from archwright.errors import CaptureError
from archwright.exchange.capturing import rules_index, rules_layer, rules_point, rules_reduce, rules_shape  # noqa: F401
from archwright.exchange.capturing.examples import Example, example_of
from archwright.exchange.capturing.export import export
from archwright.exchange.capturing.finish import Finished
from archwright.exchange.capturing.lower import Constants, Lowering
from archwright.exchange.capturing.merge import Merged
from archwright.exchange.capturing.program import Program, Ref, Unaligned, align, refs
from archwright.exchange.capturing.proof import Differs, prove
from archwright.exchange.capturing.rules_layer import NotLiftable
from archwright.exchange.capturing.table import known
from archwright.exchange.capturing.views import written_leaves
from archwright.exchange.capturing.watch import Answer, Answers
from archwright.net.net import Net


class CaptureWarning(UserWarning):
    """A net was captured and proven, but for less than everything: for one batch size, or for eval mode only."""


@dataclass(frozen=True)
class Captured:
    """What `trace` found: the net, and what it does not hold for.

    batch  whether the net takes any batch size
    train  whether it was captured and proven in train mode
    notes  the same in words, and why
    """

    net: Net
    batch: bool
    train: bool
    notes: tuple[str, ...] = ()


def capture(
    module: nn.Module,
    example: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    train: bool | None = None,
    batch_dims: Mapping[int, int | None] | None = None,
    prove: bool = True,
    seed: int = 0,
) -> Net:
    """The module as a net that computes the same, with the same names of weights.

    example     the arguments: a tensor, or a tuple of arguments
    kwargs      further arguments by name
    train       capture train mode too: True demands it, False leaves it out. By default it is left out, with a warning,
                where the module does in training what a net cannot say (a layer left out at random)
    batch_dims  number of a tensor argument -> which of its dimensions is the batch (None: none). By default dimension 0
                of every tensor whose first dimension is as long as the first tensor's
    prove       compare net and module on random numbers, in both modes and at another batch size
    seed        of those numbers

    Weights are cloned; the module, its mode and the state of torch's random numbers stay as they are. Outputs are those
    of the module, flattened: None and plain numbers are left out. Emits a `CaptureWarning` where the net holds for less
    than the module (`trace` returns the same as data).

    Raises `CaptureError` where torch.export cannot follow the module (with the line of its code), where it does what a
    net cannot say, or where net and module part (with the first node that differs).
    """
    found = trace(module, example, kwargs, train=train, batch_dims=batch_dims, prove=prove, seed=seed)
    for note in found.notes:
        warnings.warn(note, CaptureWarning, stacklevel=2)
    return found.net


def trace(
    module: nn.Module,
    example: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    train: bool | None = None,
    batch_dims: Mapping[int, int | None] | None = None,
    prove: bool = True,
    seed: int = 0,
) -> Captured:
    """As `capture`, but returns what the net does not hold for as data instead of warnings."""
    if not isinstance(module, nn.Module):
        raise CaptureError(f"got a {type(module).__name__}, expected a torch.nn.Module")
    given = example_of(module, example, dict(kwargs or {}), batch_dims)
    with _undisturbed(module), torch.random.fork_rng(devices=[]):
        return _Capture(_copied(module), given, train, prove, seed).run()


@dataclass
class _Capture:
    """One capture: tries a free batch first, then the example's own."""

    module: nn.Module
    example: Example
    train: bool | None
    prove: bool
    seed: int
    notes: list[str] = field(default_factory=list)
    lift: bool = True
    answers: dict[tuple[bool, int], list[Answer]] = field(default_factory=dict)

    def run(self) -> Captured:
        """Try batch sizes until one way works."""
        found, why = self._free()
        free = found is not None
        if found is None:
            asked = self.train
            found = self._at((self.example.batch,))
            if asked is None and self.train is False:
                # it was train mode that was bound to the batch size, and it is lost anyway
                notes, self.notes = self.notes, []
                again, _ = self._free()
                free = again is not None
                found = found if again is None else again
                self.notes = [*notes, *self.notes] if free else notes
            if not free and self.example.free:
                self.notes.append(f"the net only takes a batch of {self.example.batch}: {why}")
        free = free or not self.example.free
        return Captured(found, free, self.train is not False, tuple(self.notes))

    def _free(self) -> tuple[Net | None, str]:
        """A net that takes any batch size, or None and why there is none."""
        why = ""
        for batches in self.example.plans():
            try:
                return self._at(batches), ""
            except (Unaligned, _Fixed) as error:
                why = str(error)
                self.notes.clear()
        return None, why

    def _at(self, batches: Sequence[int]) -> Net:
        self.answers.clear()
        for batch in batches:
            # also lets the module fill whatever it keeps for later calls, before export looks at it
            self._ask(False, batch)
        try:
            return self._lift(batches)
        except NotLiftable:
            self.lift = False
            return self._lift(batches)

    def _ask(self, train: bool, batch: int) -> None:
        """Run the module, and take down what it is told about masks."""
        self.module.train(train)
        args, kwargs = self.example.at(batch)
        answers = Answers()
        try:
            with torch.no_grad(), answers:
                self.module(*args, **kwargs)
        except Exception as error:  # whatever the module raises
            if batch != self.example.batch:
                raise _Fixed(f"{type(error).__name__} at a batch of {batch}: {error}") from error
            raise CaptureError(
                f"{type(self.module).__name__} itself fails on the example: {type(error).__name__}: {error}"
            ) from error
        self.answers[train, batch] = answers.found

    def _lift(self, batches: Sequence[int]) -> Net:
        before = list(self.notes)
        eval_ = self._programs(False, batches)
        try:
            train = None if self.train is False else self._programs(True, batches)
            return self._net(eval_, train, batches, layout=False)
        except Differs as error:
            if not error.train:
                raise
            first = error
        except CaptureError as error:
            return self._eval_only(eval_, batches, error, before)
        # dropout draws in the order of memory: perhaps that order was changed on the way
        self.notes = list(before)
        try:
            return self._net(eval_, train, batches, layout=True)
        except CaptureError:
            if first.node:
                raise first from None
            return self._eval_only(eval_, batches, first, before)

    def _eval_only(
        self, eval_: list[Program], batches: Sequence[int], error: CaptureError, notes: Sequence[str]
    ) -> Net:
        """The net for eval mode, where what the module does in training cannot be said."""
        if self.train is not None:
            raise error
        self.notes = list(notes)
        found = self._net(eval_, None, batches, layout=False)
        self.train = False
        self.notes.append(f"the net is only right in eval mode: {error}")
        return found

    def _net(self, eval_: list[Program], train: list[Program] | None, batches: Sequence[int], layout: bool) -> Net:
        constants = Constants()
        frozen = _frozen(train[0]) if train is not None else frozenset()
        written = written_leaves(eval_[-1]) | (frozenset() if train is None else written_leaves(train[-1]))
        low = Lowering(eval_[-1], constants, frozen, written, layout).run()
        high = None if train is None else Lowering(train[-1], constants, frozen, written, layout).run()
        pairs = _pairs(eval_[-1], None if train is None else train[-1], self.notes)
        state = dict(self.module.named_buffers(remove_duplicate=False))
        state |= dict(self.module.named_parameters(remove_duplicate=False))
        merged = Merged(low, high, pairs)
        finished = Finished(merged, state, constants)
        if merged.changed:
            self.notes.append(
                f"the module changes {', '.join(merged.changed)} in eval mode, too: the net only does so in training"
            )
        for why in dict.fromkeys(why for _, why in merged.checks):
            self.notes.append(f"the net takes inputs like the example only, and checks that: an error if {why}")
        net = Net(finished.graph, finished.weights)
        if net.opaque_share:
            self.notes.append(_opaque_note(net, low.failures))
        if self.prove:
            programs = {False: eval_[0]} | ({} if train is None else {True: train[0]})
            prove(self.module, net, self.example, finished, programs, pairs, batches, bool(written), self.seed)
        return net

    def _programs(self, train: bool, batches: Sequence[int]) -> list[Program]:
        """The exports at each batch size, and last the one that holds for both."""
        self.module.train(train)
        made = []
        for batch in batches:
            if train and self.answers[False, batch]:
                with _undisturbed(self.module):
                    self._ask(True, batch)
                self.module.train(True)
            args, kwargs = self.example.at(batch)
            answers = self.answers.get((train, batch), [])
            try:
                made.append(
                    export(self.module, args, kwargs, batch=batch, known=known, lift=self.lift, answers=answers)
                )
            except CaptureError as error:
                if len(batches) > 1 and batch != self.example.batch:
                    raise _Fixed(str(error)) from error
                raise
        return [*made, align(made[0], made[1])] if len(made) == 2 else made


class _Fixed(Exception):
    """The module does not work at another batch size."""


def _frozen(program: Program) -> frozenset[str]:
    """Names of running statistics that stand still in train mode."""
    found = set()
    for call in program.calls.values():
        if call.name in ("batch_norm", "instance_norm") and call.args[3] is not None and not call.args[5]:
            found |= {program.leaves[ref.id].name for ref in refs(call.args[3]) if ref.id in program.leaves}
    return frozenset(found)


def _pairs(eval_: Program, train: Program | None, notes: list[str]) -> list[tuple[int, int]]:
    """Which outputs of train mode are those of eval mode: (place in eval's, place in train's)."""
    first = [i for i, value in enumerate(eval_.outputs) if isinstance(value, Ref)]
    if not first:
        raise CaptureError("the module returns no tensor: expected at least one")
    if train is None:
        return [(i, i) for i in first]
    second = [i for i, value in enumerate(train.outputs) if isinstance(value, Ref)]
    metas = [[p.meta(p.outputs[i]) for i in which] for p, which in ((eval_, first), (train, second))]
    shapes = [[(m.shape, m.dtype) for m in side] for side in metas]
    if shapes[0] == shapes[1]:
        return list(zip(first, second, strict=True))
    pairs, free = [], list(range(len(second)))
    for i, shape in zip(first, shapes[0], strict=True):
        same = [j for j in free if shapes[1][j] == shape]
        if not same:
            raise CaptureError(
                f"the module returns {len(first)} tensors in eval mode and {len(second)} in train mode, and none of "
                f"those has the shape of output {i}"
            )
        free.remove(same[0])
        pairs.append((i, second[same[0]]))
    counts = f"{len(second)} tensors in train mode and {len(first)} in eval mode"
    notes.append(f"the module returns {counts}: the net returns the latter")
    return pairs


def _opaque_note(net: Net, failures: Sequence[str]) -> str:
    """Which nodes are opaque, and why."""
    nodes = [node for node in net.graph.nodes if node.op == "opaque"]
    targets = sorted({str(node.attrs["target"]) for node in nodes})
    names = tuple([f"{target.rpartition('.')[0]}:" for target in targets])
    why = [failure for failure in dict.fromkeys(failures) if failure.startswith(names)]
    note = f"{len(nodes)} of {len(net.graph)} nodes are opaque: {', '.join(targets)}"
    return f"{note} ({'; '.join(why)})" if why else note


def _copied(module: nn.Module) -> nn.Module:
    """A copy to work on, or the module itself where it can't be copied: what it keeps beside its state may change."""
    try:
        return copy.deepcopy(module)
    except Exception:  # a module may refuse to be copied in any way it likes
        return module


@contextmanager
def _undisturbed(module: nn.Module):  # type: ignore[no-untyped-def]
    """Leave modes and buffers of a module as they were."""
    modes = [(child, child.training) for child in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if isinstance(buffer, Tensor) and not torch.equal(buffer, before):
                    buffer.copy_(before)
