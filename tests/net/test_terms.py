"""The algebra of axes on its own: refinement, and giving up where structures do not nest."""

from hypothesis import given
from hypothesis import strategies as st

from archwright.net.terms import Atom, Concat, Product, atoms, concat, factor, product, resolve, split, unify


def pinned(term) -> bool:
    return all(atom.pinned for atom in atoms(term) if atom.size > 1)


def sizes(term) -> list[int]:
    return [atom.size for atom in atoms(term)]


def test_an_atom_becomes_what_it_is_found_to_be():
    c, d = Atom(12), Product([Atom(3), Atom(4)])
    unify(c, d)
    assert sizes(c) == [3, 4] and list(atoms(c)) == list(atoms(d)) and not pinned(c)


def test_products_that_nest_are_refined_and_others_are_pinned():
    one, other = product([Atom(4), Atom(16)]), product([Atom(16), Atom(4)])
    unify(one, other)
    assert sizes(one) == [4, 4, 4] and list(atoms(one)) == list(atoms(other))
    one, other = product([Atom(2), Atom(3)]), product([Atom(3), Atom(2)])
    unify(one, other)
    assert pinned(one) and pinned(other)


def test_concatenations_are_cut_at_all_borders():
    one, other = concat([Atom(16), Atom(8)]), concat([Atom(12), Atom(12)])
    unify(one, other)
    assert sizes(one) == sizes(other) == [12, 4, 8] and list(atoms(one)) == list(atoms(other))


def test_a_product_of_a_concatenation_is_cut_by_whole_rows():
    rows, columns = Atom(6), Atom(5)
    flat = product([rows, columns])
    unify(flat, concat([Atom(10), Atom(20)]))
    assert sizes(rows) == [2, 4] and not pinned(flat)
    flat = product([Atom(6), Atom(5)])
    unify(flat, concat([Atom(12), Atom(18)]))
    assert pinned(flat)


def test_a_concatenation_seen_as_a_product_shares_the_inner_factor():
    one = concat([Atom(8), Atom(12)])
    outer, inner = factor(one, [5, 4])
    assert sizes(outer) == [2, 3] and sizes(inner) == [4]
    assert len(set(map(id, atoms(one)))) == 3


def test_pins_spread_over_everything_that_is_the_same():
    a, b = Atom(6), Atom(6, "an input")
    unify(a, product([Atom(2), Atom(3)]))
    unify(b, a)
    assert pinned(a) and pinned(b)


def test_a_term_inside_itself_is_pinned():
    a = Atom(4)
    unify(a, product([Atom(4), Atom(1)]))
    unify(a, Concat([a]))
    assert resolve(a).size == 4


_SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(_SIZES, _SIZES, st.randoms(use_true_random=False))
def test_unification_keeps_sizes_and_makes_both_sides_the_same_or_pins_both(first, second, random):
    def build(shape):
        made = [Atom(n) for n in shape]
        return product(made) if random.random() < 0.5 else concat(made)

    one, other = build(first), build(second)
    if one.size != other.size:
        return
    size = one.size
    unify(one, other)
    assert resolve(one).size == resolve(other).size == size
    # a single unit cannot move, so it is not tied to another
    mine, theirs = ([id(atom) for atom in atoms(term) if atom.size > 1] for term in (one, other))
    assert mine == theirs or (pinned(one) and pinned(other))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_split_and_join(shape):
    whole = Atom(sum(shape))
    parts = split(whole, shape)
    assert [part.size for part in parts] == shape
    assert [id(a) for a in atoms(whole)] == [id(a) for part in parts for a in atoms(part)]
