"""Observers: a contract for all of them, and each against a search by brute force."""

import numpy as np
import pytest
import torch

from openwork import plugins
from openwork.errors import ModelError, UsageError
from openwork.quantization.histogram import BINS, Histogram
from openwork.quantization.observers.base import Observer
from openwork.quantization.observers.entropy import Entropy, divergence
from openwork.quantization.observers.minmax import MinMax
from openwork.quantization.observers.mse import MSE
from openwork.quantization.observers.percentile import Percentile

EVERY = [
    pytest.param(kind(**settings), id=f"{name}-{settings}")
    for name, kind in plugins.every("quantization.observers", Observer).items()  # type: ignore[type-abstract]
    for settings in kind.EXAMPLES
]


def seen(*tensors: torch.Tensor) -> Histogram:
    found = Histogram()
    for tensor in tensors:
        found.add(tensor)
    return found


def bell(count: int = 20_000, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("observer", EVERY)
@pytest.mark.parametrize("levels", [1, 7, 127, 255])
@pytest.mark.parametrize(
    "values",
    [
        bell(),
        bell().relu(),
        torch.cat([bell(), torch.tensor([1e3])]),
        torch.tensor([0.0, 1e-30]),
        torch.full((9,), 2.0),
    ],
    ids=["signed", "relu", "outlier", "tiny", "constant"],
)
def test_a_limit_is_positive_and_within_what_was_seen(observer: Observer, levels: int, values: torch.Tensor) -> None:
    histogram = seen(values)
    limit = observer.limit(histogram, levels)
    assert 0 < limit <= histogram.largest
    assert observer.limit(seen(values), levels) == limit


@pytest.mark.parametrize("observer", EVERY)
def test_a_limit_scales_with_the_values(observer: Observer) -> None:
    assert observer.limit(seen(4 * bell()), 127) == pytest.approx(4 * observer.limit(seen(bell()), 127))


@pytest.mark.parametrize("observer", EVERY)
def test_settings_survive_json(observer: Observer) -> None:
    assert Observer.parse(observer.model_dump()) == observer


def test_minmax_is_the_largest_magnitude() -> None:
    assert MinMax().limit(seen(torch.tensor([1.0, -3.0, 2.0])), 127) == 3.0


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
def test_percentile_against_sorting(percent: float) -> None:
    values = torch.cat([bell(), torch.zeros(5_000)])
    histogram = seen(values)
    found = Percentile(percent=percent).limit(histogram, 127)
    within = [float((values.abs() <= limit).double().mean()) for limit in (found - histogram.width, found + 1e-6)]
    assert within[0] < percent / 100 <= within[1]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_mse_against_brute_force(bits: int, signed: bool) -> None:
    values = bell() if signed else bell().relu()
    values = torch.cat([values, torch.tensor([20.0])])
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1

    def error(limit: float) -> float:
        low = -levels if signed else 0
        return float(
            (torch.fake_quantize_per_tensor_affine(values, limit / levels, 0, low, levels) - values).square().sum()
        )

    best = min(error(limit) for limit in np.linspace(0.05, 20, 800))
    assert error(MSE().limit(seen(values), levels)) <= 1.02 * best


def test_entropy_against_brute_force() -> None:
    values = torch.cat([bell(), torch.tensor([12.0])])
    histogram = seen(values)
    counts = histogram.counts.reshape(-1, 2).sum(1)
    every = {size: divergence(counts, size, 127) for size in range(128, len(counts) + 1)}
    found = Entropy().limit(histogram, 127)
    assert divergence(counts, round(found / histogram.width / 2), 127) <= 1.3 * min(every.values())
    assert found < 8  # the outlier is clipped


def test_divergence_on_paper() -> None:
    # Two levels (0 and 1) over four bins: bins 0 and 1 go to level 0, bins 2 and 3 to level 1; 2 lie beyond.
    found = divergence(np.array([1, 3, 0, 4, 2]), 4, 1)
    p, q = np.array([1, 3, 6]) / 10, np.array([2, 2, 4]) / 8
    assert found == pytest.approx(float((p * np.log(p / q)).sum()))
    assert divergence(np.array([5, 5, 5, 5]), 4, 1) == 0
    assert divergence(np.array([5, 5, 0, 5]), 3, 1) == np.inf  # what lies beyond falls where nothing was


def test_histogram_counts_exactly_as_it_grows() -> None:
    pieces = [bell(1000, seed) * 3.0**seed for seed in range(6)] + [torch.zeros(7)]
    histogram, whole = seen(*pieces), torch.cat(pieces)
    assert histogram.total == len(whole) and histogram.zeros == 7
    assert histogram.largest == float(whole.abs().max()) and histogram.least == float(whole.min())
    assert histogram.signed and not seen(whole.abs()).signed
    assert histogram.counts.sum() == int((whole != 0).sum()) and len(histogram.counts) == BINS
    edges = np.arange(BINS + 1) * histogram.width
    np.testing.assert_allclose(
        np.cumsum(histogram.counts), np.cumsum(np.histogram(whole[whole != 0].abs().numpy(), edges)[0]), atol=3
    )
    assert histogram.beyond(float(whole.abs().sort().values[-11])) == pytest.approx(10 / len(whole), abs=3 / len(whole))


def test_histogram_refuses_what_is_not_finite() -> None:
    with pytest.raises(ModelError, match="relu becomes NaN or infinite"):
        Histogram().add(torch.tensor([1.0, float("nan")]), "relu")


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match=r"Percentile.percent: 3 is not in 50..100"):
        Percentile(percent=3)
    with pytest.raises(ValueError, match=r"unknown observer 'msee'; did you mean mse"):
        Observer.parse({"kind": "msee"})
