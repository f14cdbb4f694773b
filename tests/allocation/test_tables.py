"""Tables of options: noise is smoothed, and sparsity that saves nothing is no option."""

import pytest

from openwork.allocation import tables
from openwork.allocation.tables import LayerTable, Option


def table(*rows: tuple[float, float, float]) -> LayerTable:
    """Of (sparsity, loss, microseconds)."""
    return LayerTable("layer", tuple(Option(s, x, {"latency": t, "bytes": 100 * (1 - s)}) for s, x, t in rows))


def sparsities(layer: LayerTable) -> list[float]:
    return [option.sparsity for option in layer.options]


def test_break_even_is_the_least_sparsity_that_is_faster() -> None:
    layer = table((0, 0, 10), (0.5, 1, 12), (0.7, 2, 10), (0.8, 3, 7), (0.9, 4, 5))
    assert tables.break_even(layer) == 0.8
    assert sparsities(tables.beyond_break_even(layer)) == [0, 0.8, 0.9]


def test_a_layer_that_is_never_faster_has_no_break_even_and_only_its_dense_form() -> None:
    layer = table((0, 0, 10), (0.5, 1, 12), (0.9, 2, 10))
    assert tables.break_even(layer) is None
    assert sparsities(tables.beyond_break_even(layer)) == [0]


def test_where_dense_is_no_option_there_is_nothing_to_compare_with() -> None:
    layer = table((0.8, 1, 12), (0.9, 2, 13))
    assert tables.break_even(layer) is None and tables.beyond_break_even(layer) == layer


def test_noise_is_smoothed() -> None:
    layer = tables.smoothed(table((0, 0, 10), (0.5, 2, 6), (0.7, 1, 7), (0.9, 3, 5)))
    assert [option.loss for option in layer.options] == [0, 2, 2, 3]
    assert [option.costs["latency"] for option in layer.options] == [10, 6, 6, 5]


def test_options_that_save_nothing_are_left_out() -> None:
    layer = table((0, 0, 10), (0.3, 1, 10), (0.5, 2, 8), (0.9, 3, 8))
    assert sparsities(tables.useful(layer, ["latency"])) == [0, 0.5]
    assert sparsities(tables.useful(layer, ["bytes", "latency"])) == [0, 0.3, 0.5, 0.9]


@pytest.mark.parametrize(("name", "least"), [("latency", 5 + 1), ("bytes", pytest.approx(10 + 50))])
def test_the_least_is_that_of_every_layer(name: str, least: float) -> None:
    assert tables.least([table((0, 0, 10), (0.9, 2, 5)), table((0, 0, 2), (0.5, 1, 1))], name) == least
