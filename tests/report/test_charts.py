"""Charts show the numbers they are given."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from openwork.report import charts


def drawn_mask(svg: str) -> np.ndarray:
    """The picture back as a matrix."""
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg)
    assert box
    matrix = np.zeros((int(box[2]), int(box[1])), bool)
    for x, y, length, start in re.findall(r"M(\d+) (\d+)h(\d+)v1H(\d+)z", svg):
        assert x == start
        matrix[int(y), int(x) : int(x) + int(length)] = True
    return matrix


@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=9), elements=st.sampled_from([0, 1]))
)
def test_a_mask_shows_exactly_the_weights_that_are_kept(weight: np.ndarray) -> None:
    expected = weight.reshape(weight.shape[0], -1) != 0
    assert np.array_equal(drawn_mask(charts.mask(weight)), expected[:64, :64])


def test_a_large_mask_is_cut_to_its_first_corner() -> None:
    weight = np.random.default_rng(0).integers(0, 2, (70, 10, 3, 3))
    assert np.array_equal(drawn_mask(charts.mask(weight)), weight.reshape(70, 90)[:64, :64] != 0)


def bar_widths(svg: str) -> list[float]:
    widths = []
    for path in re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--(?:accent|quiet)\)"', svg):
        xs = [float(x) for x in re.findall(r"[ML] (\S+) \S+", path)]
        widths.append(max(xs) - min(xs))
    return widths


@given(st.lists(st.floats(0.5, 1e6), min_size=1, max_size=5))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    svg = charts.bars([{"name": f"e{i}", "value": v, "ours": i == 0} for i, v in enumerate(values)], "µs", "Test")
    assert svg is not None
    widths = bar_widths(svg)
    assert len(widths) == len(values)
    np.testing.assert_allclose(np.array(widths) / max(widths), np.array(values) / max(values), atol=1e-3)
    assert all(f"{charts.number(v)} µs" in svg for v in values)


def test_nothing_to_draw_is_none() -> None:
    assert charts.bars([], "µs", "Test") is None
    assert charts.curves([{"phase": "dense", "other": 1}], {"x": "x"}, "X") is None
    assert charts.curves([{"x": float("nan")}], {"x": "x"}, "X") is None


def test_curves_say_their_last_value_and_shade_each_phase() -> None:
    epochs = [{"phase": "dense", "x": 0.5}, {"phase": "shape", "x": 0.25}, {"phase": "shape", "x": 0.125}]
    svg = charts.curves(epochs, {"x": "x"}, "X", percent=True)
    assert svg is not None and "12.50 %" in svg
    assert svg.count("var(--phase-dense)") == 1 and svg.count("var(--phase-shape)") == 1
    assert "var(--phase-retrain)" not in svg


def test_a_residual_of_zero_does_not_break_the_log_axis() -> None:
    svg = charts.curves([{"x": 0.0}, {"x": 10.0}, {"x": 0.1}], {"x": "x"}, "X", log=True)
    assert svg is not None and "inf" not in svg and "nan" not in svg


def test_charts_take_fonts_and_colours_from_the_page() -> None:
    svg = charts.bars([{"name": "a & b", "value": 1.0}], "µs", 'Quote " and <')
    assert svg is not None
    assert "font-family" not in svg and "DejaVu" not in svg
    assert not re.findall(r"#0102\w\w", svg), "a marker colour was left in"
    assert 'aria-label="Quote &quot; and &lt;"' in svg and "<metadata" not in svg


def test_numbers_have_three_significant_digits() -> None:
    shown = [charts.number(v) for v in (0, 0.00012, 0.0523, 1.2345, 61.23, 999.6, 12345.6)]
    assert shown == ["0", "1.2e-04", "0.0523", "1.23", "61.2", "1,000", "12,346"]
