"""The algebra of axes: a dimension as a term of atoms, products and concatenations, and how two terms are made equal.

Terms are unified as in logic programming: an atom is bound to what it is found to be, and split where the other side is
finer. Where two structures do not nest (6 = 2 x 3 against 3 x 2) everything in them is pinned: safe, never guessed.
Functions that refine a term return None where they cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Atom:
    """A run of units. `to` is what it turned out to be: another atom, a product or a concatenation."""

    __slots__ = ("anonymous", "pinned", "size", "to")

    def __init__(self, size: int, pinned: str = "", anonymous: bool = False) -> None:
        self.size = size
        self.to: Term | None = None
        self.pinned = pinned
        self.anonymous = anonymous


class Product(list):  # type: ignore[type-arg]
    """Factors, the slowest first."""

    @property
    def size(self) -> int:
        return count([term.size for term in self])


class Concat(list):  # type: ignore[type-arg]
    """Pieces, one after the other."""

    @property
    def size(self) -> int:
        return sum([term.size for term in self])


Term = Atom | Product | Concat


def resolve(term: Term) -> Term:
    """What the term is by now: an unbound atom, a product or a concatenation."""
    while type(term) is Atom and term.to is not None:
        if type(term.to) is Atom and term.to.to is not None:
            term.to = term.to.to  # halve the path
        term = term.to
    return term


def factors(term: Term) -> list[Term]:
    """The term as a product without trivial or nested factors."""
    term = resolve(term)
    if type(term) is Product:
        return [inner for part in term for inner in factors(part)]
    return [] if term.size == 1 else [term]


def pieces(term: Term) -> list[Term]:
    """The term as a concatenation without empty or nested pieces."""
    term = resolve(term)
    if type(term) is Concat:
        return [inner for part in term for inner in pieces(part)]
    return [] if term.size == 0 else [term]


def product(terms: list[Term]) -> Term:
    """The product of terms, flat."""
    flat = [inner for term in terms for inner in factors(term)]
    return flat[0] if len(flat) == 1 else Product(flat) if flat else Atom(1, "a single unit", True)


def concat(terms: list[Term]) -> Term:
    """The concatenation of terms, flat."""
    flat = [inner for term in terms for inner in pieces(term)]
    return flat[0] if len(flat) == 1 else Concat(flat) if flat else Atom(0, "empty", True)


def atoms(term: Term) -> Iterator[Atom]:
    """The unbound atoms of a term, in order, with repetitions."""
    term = resolve(term)
    if type(term) is Atom:
        yield term
    else:
        for inner in term:
            yield from atoms(inner)


def pin(term: Term, reason: str) -> None:
    """Say that no unit of the term can be moved, and why (the first reason stays)."""
    for atom in atoms(term):
        atom.pinned = atom.pinned or reason


def give_up(terms: Sequence[Term], sizes: Sequence[int]) -> list[Term]:
    """Pin terms whose structures do not nest; returns pinned stand-ins of the sizes that were wanted of them."""
    reason = "two views of one dimension that do not nest"
    for term in terms:
        pin(term, reason)
    return [Atom(n, reason) for n in sizes]


def cut(term: Term, at: int) -> tuple[Term, Term] | None:
    """The first `at` positions and the rest, or None where the structure has no such place."""
    term = resolve(term)
    if type(term) is Atom:
        left, right = Atom(at, term.pinned, term.anonymous), Atom(term.size - at, term.pinned, term.anonymous)
        term.to = Concat([left, right])
        return left, right
    if type(term) is Concat:
        found = split(term, [at, term.size - at])
        return None if found is None else (found[0], found[1])
    parts = factors(term)
    inner = Product(parts[1:]).size
    if at % inner:
        return None
    halves = cut(parts[0], at // inner)
    if halves is None:
        return None
    return product([halves[0], *parts[1:]]), product([halves[1], *parts[1:]])


def split(term: Term, sizes: Sequence[int]) -> list[Term] | None:
    """Terms of the given sizes whose concatenation is the term, or None."""
    if len(sizes) == 1:
        return [term]
    waiting = pieces(term)[::-1]
    found: list[Term] = []
    for n in sizes:
        taken: list[Term] = []
        while n:
            piece = waiting.pop()
            if piece.size > n:
                halves = cut(piece, n)
                if halves is None:
                    return None
                piece = halves[0]
                waiting.append(halves[1])
            n -= piece.size
            taken.append(piece)
        found.append(concat(taken))
    return found


def factor(term: Term, sizes: Sequence[int]) -> list[Term] | None:
    """Terms of the given sizes whose product is the term, or None."""
    real = [n for n in sizes if n != 1]
    if len(real) < len(sizes):
        inner = factor(term, real) if real else []
        if inner is None:
            return None
        rest = iter(inner)
        return [Atom(1, "a single unit", True) if n == 1 else next(rest) for n in sizes]
    if len(sizes) == 1:
        return [term]
    term = resolve(term)
    if type(term) is Atom:
        made: list[Term] = [Atom(n, term.pinned, term.anonymous) for n in sizes]
        term.to = Product(made)
        return made
    if type(term) is Concat:
        outers: list[Term] = []
        shared: list[Term] | None = None
        inner_size = count(sizes[1:])
        for piece in pieces(term):
            if piece.size % inner_size:
                return None
            parts = factor(piece, [piece.size // inner_size, *sizes[1:]])
            if parts is None:
                return None
            outers.append(parts[0])
            if shared is None:
                shared = parts[1:]
            else:
                for one, other in zip(shared, parts[1:], strict=True):
                    unify(one, other)
        return [concat(outers), *(shared or [])]
    waiting = factors(term)[::-1]
    found: list[Term] = []
    for n in sizes:
        taken: list[Term] = []
        while n != 1:
            part = waiting.pop()
            if part.size > n:
                if part.size % n:
                    return None
                halves = factor(part, [n, part.size // n])
                if halves is None:
                    return None
                part = halves[0]
                waiting.append(halves[1])
            if n % part.size:
                return None
            n //= part.size
            taken.append(part)
        found.append(product(taken))
    return found


def count(sizes: Sequence[int]) -> int:
    """The product of sizes."""
    n = 1
    for k in sizes:
        n *= k
    return n


def unify(one: Term, other: Term) -> None:
    """Make two terms of equal size the same. Single units are left apart: they cannot move, and may be broadcast."""
    one, other = resolve(one), resolve(other)
    if one is other or one.size <= 1:
        return
    if type(other) is Atom and type(one) is not Atom:
        one, other = other, one
    if type(one) is Atom:
        if type(other) is not Atom and any(atom is one for atom in atoms(other)):
            give_up([one, other], [])
            return
        if one.pinned:
            pin(other, one.pinned)
        if type(other) is Atom:
            other.anonymous = other.anonymous and one.anonymous
        one.to = other
        return
    if type(one) is Concat and type(other) is Concat:
        theirs = pieces(other)
        found = split(one, [part.size for part in theirs])
    else:
        if type(one) is Product:
            one, other = other, one
        theirs = factors(other)
        found = factor(one, [part.size for part in theirs])
    if found is None:
        give_up([one, other], [])
        return
    for mine, its in zip(found, theirs, strict=True):
        unify(mine, its)
