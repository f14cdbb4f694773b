"""Who picks keeps every limit, and loses as little as brute force says is possible on hulls."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork import plugins
from openwork.allocation import tables
from openwork.allocation.methods import convex
from openwork.allocation.tables import LayerTable, Limits, Option, Picks

FEW = settings(max_examples=40, deadline=None)
METHODS = plugins.names("allocation.methods")


@st.composite
def layers(draw: st.DrawFn, costs: Sequence[str] = ("bytes",)) -> list[LayerTable]:
    """Up to four layers of up to four options; loss rises and costs fall with sparsity, in steps of any size."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        steps = draw(st.integers(0, 3))
        spent = {name: sorted(draw(_distinct(steps + 1)), reverse=True) for name in costs}
        harm = [0.0, *itertools.accumulate(draw(st.lists(st.integers(0, 40), min_size=steps, max_size=steps)))]
        options = tuple(
            Option(0.2 * i, float(harm[i]), {name: float(spent[name][i]) for name in costs}) for i in range(steps + 1)
        )
        found.append(LayerTable(f"layer{number}", options))
    return found


def _distinct(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 100), min_size=count, max_size=count, unique=True)


def limits_of(found: list[LayerTable], share: float) -> Limits:
    """Between the least that is possible (share 0) and all dense (1)."""
    dense = (0,) * len(found)
    return {
        name: tables.least(found, name) * (1 - share) + tables.total(found, dense, name) * share
        for name in found[0].options[0].costs
    }


def best(found: list[LayerTable], limits: Limits) -> float:
    """The oracle: the least loss of every combination that keeps the limits."""
    choices = itertools.product(*(range(len(layer.options)) for layer in found))
    return min(tables.loss(found, picks) for picks in choices if tables.met(found, picks, limits))


def largest_step(found: list[LayerTable]) -> float:
    """What one layer can gain at most: rounding to a corner of a hull costs no more than that."""
    return max(layer.options[-1].loss for layer in found)


def pick(method: str, found: list[LayerTable], limits: Limits) -> Picks:
    picks: Picks = plugins.module("allocation.methods", method).pick(found, limits)
    return picks


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(found=layers(), share=st.floats(0, 1))
def test_the_limit_holds_and_no_loss_is_below_the_best(method: str, found: list[LayerTable], share: float) -> None:
    limits = limits_of(found, share)
    picks = pick(method, found, limits)
    assert tables.met(found, picks, limits)
    assert tables.loss(found, picks) >= best(found, limits)


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(found=layers(("bytes", "latency")), share=st.floats(0, 1), other=st.floats(0, 1))
def test_two_limits_hold_at_once(method: str, found: list[LayerTable], share: float, other: float) -> None:
    limits = {"bytes": limits_of(found, share)["bytes"], "latency": limits_of(found, other)["latency"]}
    assert tables.met(found, pick(method, found, limits), limits)


@FEW
@given(found=layers(), share=st.floats(0, 1))
def test_on_hulls_nothing_that_costs_as_little_loses_less(found: list[LayerTable], share: float) -> None:
    """Everett's theorem: what prices find is optimal for what it spends."""
    picks = convex.on_hulls(found, limits_of(found, share))
    spent = {"bytes": tables.total(found, picks, "bytes")}
    assert tables.loss(found, picks) == best(found, spent)


@FEW
@given(found=layers(), share=st.floats(0, 1))
def test_convex_is_within_a_step_of_the_best_and_of_greedy(found: list[LayerTable], share: float) -> None:
    limits = limits_of(found, share)
    loss, gap = tables.loss(found, pick("convex", found, limits)), largest_step(found)
    assert loss <= best(found, limits) + gap
    assert loss <= tables.loss(found, pick("greedy", found, limits)) + gap


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(found=layers(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_budget_never_loses_more(method: str, found: list[LayerTable], shares: tuple[float, float]) -> None:
    less, more = (tables.loss(found, pick(method, found, limits_of(found, s))) for s in sorted(shares))
    assert more <= less


def test_of_one_layer_greedy_stops_at_the_first_step_that_suffices() -> None:
    layer = LayerTable("a", tuple(Option(i / 4, float(i * i), {"bytes": 10.0 - i}) for i in range(4)))
    assert pick("greedy", [layer], {"bytes": 8.0}) == (2,)
    assert pick("greedy", [layer], {"bytes": 10.0}) == (0,)


def test_convex_looks_past_a_step_that_greedy_shuns() -> None:
    """The first step of one layer is dear, the next are free: its hull goes past it, the greedy walk never enters."""
    steep = LayerTable("a", tuple(Option(i / 4, x, {"bytes": b}) for i, (x, b) in enumerate([(0, 10), (6, 9), (6, 1)])))
    even = LayerTable("b", tuple(Option(i / 9, i, {"bytes": 10 - i}) for i in range(9)))
    limits = {"bytes": 11.0}
    assert tables.loss([steep, even], pick("convex", [steep, even], limits)) == 6
    assert tables.loss([steep, even], pick("greedy", [steep, even], limits)) == 8 + 6


def test_convex_takes_no_more_than_it_needs_where_sparsity_seems_to_be_free() -> None:
    free = LayerTable("a", tuple(Option(i / 9, 0.0, {"bytes": 10.0 - i}) for i in range(9)))
    assert pick("convex", [free, free], {"bytes": 15.0}) in [(0, 5), (5, 0)]
