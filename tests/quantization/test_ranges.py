"""Where grids end, against a search of its own."""

import pytest
import torch

from openwork.quantization.ranges import OBSERVERS, largest, least_error
from openwork.quantization.rounding import Grid


def error(values: torch.Tensor, end: float, bits: int) -> float:
    return float((Grid.of(end, bits, signed=False).round(values) - values).double().square().sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_end_of_least_error_is_as_good_as_an_exhaustive_search(bits: int) -> None:
    values = torch.randn(20000, generator=torch.Generator().manual_seed(0)).abs()
    found = error(values, least_error(values, 2**bits - 1), bits)
    best = min(error(values, float(values.max()) * share / 200, bits) for share in range(10, 201))
    assert best <= found * 1.0001 and found <= 1.05 * best
    assert found <= error(values, largest(values, 2**bits - 1), bits)


def test_few_bits_cut_outliers_and_the_largest_value_is_never_cut() -> None:
    values = torch.cat([torch.rand(10000, generator=torch.Generator().manual_seed(0)), torch.tensor([-50.0])])
    assert 1 <= least_error(values, 15) < 20 and largest(values, 15) == 50
    assert set(OBSERVERS) == {"max", "mse"}


@pytest.mark.parametrize("observer", OBSERVERS.values())
def test_values_without_a_range(observer: object) -> None:
    assert observer(torch.zeros(5), 255) == 0  # type: ignore[operator]
    assert observer(torch.zeros(0), 255) == 0  # type: ignore[operator]
    assert observer(torch.full((5,), 2.0), 255) == pytest.approx(2, rel=0.06)  # type: ignore[operator]
