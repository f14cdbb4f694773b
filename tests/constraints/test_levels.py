"""Quantization levels: nearest members by brute force, the papers' invariants, and what retraining keeps."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

import openwork as ow
from openwork.constraints import _intervals
from openwork.constraints.and_ import And
from openwork.constraints.base import Constraint
from openwork.constraints.levels import Levels
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ShapeError, UsageError

SCHEMES = ["uniform", "nonzero", "power_of_two", "codebook"]
EVERY = [
    Levels(bits=bits, scheme=scheme, per=per)  # type: ignore[arg-type]
    for scheme in SCHEMES
    for bits in (1, 2, 3, 5, 8)
    for per in ("layer", "channel")
    if (scheme, bits) != ("power_of_two", 1)
]
every = pytest.mark.parametrize("levels", EVERY, ids=lambda c: f"{c.scheme}-{c.bits}-{c.per}")
scaled = pytest.mark.parametrize(
    "levels", [c for c in EVERY if c.scheme != "codebook"], ids=lambda c: f"{c.scheme}-{c.bits}-{c.per}"
)

ties = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0])
wide = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = st.one_of(arrays.arrays("float32", (3, 7), elements=e) for e in (ties, wide)).map(torch.from_numpy)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).square().sum())


def grid(levels: Levels) -> np.ndarray[Any, Any]:
    """All levels in units of the interval, written down anew from the words of each scheme."""
    top = 2 ** (levels.bits - 1)
    if levels.scheme == "nonzero" or levels.bits == 1:
        half = np.arange(1, top + 1, dtype=float)
    elif levels.scheme == "uniform":
        half = np.arange(top, dtype=float)
    else:
        half = np.array([0.0, *(0.5**k for k in range(top - 1))])
    return np.unique(np.concatenate([half, -half]))


# ---- nearest members ----


@pytest.mark.parametrize("seed", range(20))
def test_one_and_two_bits_are_nearest_of_all_codes_and_intervals(seed: int) -> None:
    w = random(1, 7, seed=seed).double()
    for bits, codes in ((1, (-1, 1)), (2, (-1, 0, 1))):
        q = torch.tensor(list(itertools.product(codes, repeat=7)), dtype=torch.float64)
        along, square = q @ w[0], q.square().sum(1)
        nearest = w.square().sum() - (along.clamp(min=0).square() / square.clamp(min=1)).max()
        for scheme in ("uniform", "power_of_two")[:bits]:
            found = distance(w, Levels(bits=bits, scheme=scheme).project(w))  # type: ignore[arg-type]
            assert found == pytest.approx(float(nearest), rel=1e-8)


def test_ternary_is_not_the_local_optimum_of_alternation() -> None:
    """A third of the seeds has a start from which alternation does not arrive; the scan over sorted weights does."""
    worse = 0
    for seed in range(100):
        w = random(1, 7, seed=seed)
        interval = w.abs().mean()
        for _ in range(20):
            q = (w / interval).round().clamp(-1, 1)
            interval = (w * q).sum() / q.square().sum().clamp(min=1)
        found, local = distance(w, Levels(bits=2).project(w)), distance(w, interval * q)
        assert found <= local + 1e-6
        worse += local > found + 1e-6
    assert worse > 5


def test_binary_is_the_sign_and_the_mean_magnitude() -> None:
    w = random(6, 50)
    w[0, 0] = 0.0
    z = Levels(bits=1, zeros="level").project(w)
    assert torch.equal(z > 0, w >= 0), "the sign of 0 is +1"
    assert torch.allclose(z.abs(), w.abs().mean().expand_as(z), rtol=2**-16)
    assert len(z.unique()) == 2
    each = Levels(bits=1, per="channel").project(w[1:])
    assert torch.allclose(each.abs()[:, 0], w[1:].abs().mean(1), rtol=2**-16)


@scaled
def test_every_weight_takes_its_nearest_level_and_zeros_stay(levels: Levels) -> None:
    w = random(4, 60, seed=levels.bits)
    w[torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = 0.0
    z = levels.project(w)
    assert not z[w == 0].any()
    if grid(levels).all():
        assert z[w != 0].all(), "what is left does not become zero"
    for row, out in zip(*((w, z) if levels.per == "channel" else (w.reshape(1, -1), z.reshape(1, -1))), strict=True):
        interval = _interval(out.numpy(), levels)
        off = np.abs(row.numpy()[:, None] - interval * grid(levels)).min(axis=1)
        found = np.abs(row.numpy() - out.numpy())
        assert (found[row != 0] <= off[row != 0] * (1 + 1e-5) + 1e-6).all()


def _interval(row: np.ndarray[Any, Any], levels: Levels) -> float:
    """The interval of a row on levels, by trying all that its largest weight can be a multiple of."""
    largest = np.abs(row).max()
    for level in np.sort(grid(levels)[grid(levels) > 0]):
        interval = largest / level
        if np.isin(np.round(row[row != 0] / interval, 6), np.round(grid(levels), 6)).all():
            return float(interval)
    raise AssertionError("the row is on no levels")


@pytest.mark.parametrize(("scheme", "bits"), [("nonzero", 2), ("nonzero", 4), ("uniform", 3), ("power_of_two", 4)])
def test_the_search_is_no_worse_than_any_interval_of_the_scan(scheme: str, bits: int) -> None:
    levels = Levels(bits=bits, scheme=scheme)  # type: ignore[arg-type]
    all_levels = grid(levels)
    for seed in range(5):
        w = random(1, 300, seed=seed)
        w[0, :3] *= 3  # some lie outside
        found = distance(w, levels.project(w))
        largest = float(w.abs().max()) / all_levels.max()
        for ratio in [*np.arange(0.9, 1.1005, 0.001), *np.linspace(0.1, 0.9, 30)]:
            nearest = np.abs(w.numpy()[0, :, None] - largest * ratio * all_levels).min(axis=1)
            limit = float((nearest**2).sum())
            assert found <= limit * (1 + 1e-6 if ratio >= 0.9 else 1.02)


@pytest.mark.parametrize("scheme", ["uniform", "nonzero", "power_of_two"])
def test_alternation_never_loses(scheme: str) -> None:
    levels = Levels(bits=4, scheme=scheme)  # type: ignore[arg-type]
    magnitudes = _intervals.Magnitudes(random(5, 200), zeros_stay=True)
    positive = torch.tensor(grid(levels)[grid(levels) >= 0])
    interval, gain = torch.full((5, 1), 0.2, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
    for _ in range(10):
        along, square = magnitudes.moments(interval, positive)
        interval, before, gain = along / square, gain, along.square() / square
        assert (gain >= before - 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_codebooks_are_nearly_the_best_partition_of_sorted_weights(seed: int) -> None:
    w = random(1, 12, seed=seed)
    found = distance(w, Levels(bits=2, scheme="codebook").project(w))
    ordered, best = np.sort(w.numpy()[0].astype(float)), np.inf
    for cuts in itertools.combinations(range(1, 12), 3):
        best = min(best, sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, cuts)))
    assert best - 1e-6 <= found <= 3 * best


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize(("scheme", "limit"), [("uniform", 1e-4), ("nonzero", 1e-4), ("codebook", 1e-4)])
def test_eight_bits_lose_next_to_nothing(scheme: str, limit: float, per: str) -> None:
    w = random(4, 500)
    z = Levels(bits=8, scheme=scheme, per=per).project(w)  # type: ignore[arg-type]
    assert distance(w, z) < limit * float(w.square().sum())


# ---- what a projection owes ----


@every
@settings(max_examples=10, deadline=None)
@given(w=matrices)
def test_members_stay_bit_for_bit_and_scales_and_signs_go_through(levels: Levels, w: Tensor) -> None:
    z = levels.project(w)
    assert levels.violations(z) == 0 and torch.isfinite(z).all()
    assert torch.equal(levels.project(z), z)
    assert torch.equal(levels.project(-w), -z + 0.0) or levels.scheme == "codebook"
    if w.abs().masked_fill(w == 0, 1).min() > 2.0**-60:
        assert torch.equal(levels.project(w * 8), z * 8)


@scaled
def test_any_multiples_of_any_interval_are_members(levels: Levels) -> None:
    """Also of intervals that a projection would round, and where the least codes do not occur."""
    positive = torch.tensor(grid(levels)[grid(levels) > 0], dtype=torch.float32)
    for codes in (positive, positive[-1:], positive[len(positive) // 2 :], positive[positive % 2 == 0]):
        if len(codes):
            row = codes.repeat(2) * torch.tensor([1.0, -1.0]).repeat_interleave(len(codes)) * 0.34375 * 2.0**60
            w = torch.stack([row, row * 2**-20])
            if levels.per == "layer":
                w = w[:1]
            assert levels.violations(w) == 0 and torch.equal(levels.project(w), w)


@every
def test_a_layer_of_zeros_stays_and_so_does_a_channel(levels: Levels) -> None:
    for zeros in ("stay", "level"):
        constraint = levels.model_copy(update={"zeros": zeros})
        z = constraint.project(torch.zeros(3, 5))
        assert torch.equal(z, torch.zeros(3, 5)) and constraint.violations(z) == 0
        if constraint.per == "channel":
            w = random(3, 5)
            w[1] = 0.0
            assert not constraint.project(w)[1].any() and constraint.violations(constraint.project(w)) == 0


def test_zeros_move_to_a_level_only_if_they_should() -> None:
    w = torch.tensor([[0.0, 1.0, -2.0, 3.0]])
    for bits, scheme in ((1, "uniform"), (2, "nonzero")):
        stay = Levels(bits=bits, scheme=scheme)  # type: ignore[arg-type]
        move = stay.model_copy(update={"zeros": "level"})
        assert stay.project(w)[0, 0] == 0 and (stay.project(w) != 0).sum() == 3
        assert (move.project(w) != 0).all()
        assert move.violations(stay.project(w)) == 1


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_have_members_of_their_own(levels: Levels, dtype: torch.dtype) -> None:
    z = levels.project(random(4, 40).to(dtype))
    assert z.dtype == dtype and levels.violations(z) == 0
    assert torch.equal(levels.project(z), z)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_long_rows_are_searched_in_a_sample(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, w = Levels(bits=3, scheme=scheme), random(20, 300)  # type: ignore[arg-type]
    whole = distance(w, levels.project(w))
    monkeypatch.setattr(_intervals, "MOST", 1000)
    z = levels.project(w)
    assert levels.violations(z) == 0 and torch.equal(levels.project(z), z)
    assert distance(w, z) < 1.1 * whole
    z[0, 0] = z.abs().max() * 1.37  # which the sample does not show, or shows alone
    assert levels.violations(levels.project(z)) == 0


@pytest.mark.parametrize(
    ("scheme", "bits", "row", "count"),
    [
        ("uniform", 2, [1, -1, 0, 2], 1),
        ("uniform", 3, [1, -2, 3, 0], 0),
        ("uniform", 3, [2, -4, 6, 0], 0),
        ("uniform", 3, [2, 4, 5], 1),
        ("uniform", 3, [1, 2, 3, 4], 1),
        ("nonzero", 3, [1, 2, 3, -4, 0], 0),
        ("nonzero", 2, [1, 1.5], 1),
        ("nonzero", 2, [1, 2, 3, 4], 2),
        ("power_of_two", 3, [1, -0.5, 0.25, 0], 0),
        ("power_of_two", 3, [1, 0.125], 1),
        ("power_of_two", 4, [3, 0.75, 1], 1),
        ("codebook", 1, [1, 2, 0], 0),
        ("codebook", 1, [1, 2, 3, -4], 2),
    ],
)
def test_violations_by_hand(scheme: str, bits: int, row: list[float], count: int) -> None:
    levels = Levels(bits=bits, scheme=scheme)  # type: ignore[arg-type]
    assert levels.violations(torch.tensor([row])) == count


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 0}, r"Levels\.bits: 0 is not in 1\.\.8; choose"),
        ({"bits": 9}, r"Levels\.bits: 9 is not in 1\.\.8; choose"),
        ({"bits": 1, "scheme": "power_of_two"}, "only the zero; choose 2 bits or more"),
        ({"bits": 2, "scheme": "log"}, "scheme: 'log'"),
    ],
)
def test_settings_outside_their_range_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Levels(**fields)
    assert "\n" not in str(caught.value)


# ---- training ----


@every
def test_retraining_keeps_codes_and_lets_intervals_follow(levels: Levels) -> None:
    member = levels.project(random(4, 30)) + 0.0
    rows = (lambda t: t) if levels.per == "channel" else (lambda t: t.reshape(1, -1))
    w, target = member.clone().requires_grad_(), 2 * member + 0.1 * random(4, 30, seed=1)
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        (w - target).square().sum().backward()
        optimizer.step()
        moved = w.detach().clone()
        with torch.no_grad():
            w.copy_(levels.hold(w, member))
        assert levels.violations(w) == 0
        for before, free, after in zip(rows(member), rows(moved), rows(w.detach()), strict=True):
            for value in before.unique():
                assert len(after[before == value].unique()) == 1, "a code stays what it is"
                if levels.scheme == "codebook":
                    torch.testing.assert_close(after[before == value][0], free[before == value].mean() * bool(value))
            if levels.scheme != "codebook":
                fit = float((free * before).sum() / before.square().sum())
                torch.testing.assert_close(after, before * fit, rtol=1e-4, atol=1e-6)
                assert torch.equal(after.sign(), before.sign())


def test_an_interval_stays_above_zero() -> None:
    member = torch.tensor([[1.0, -2.0, 0.0]])
    held = Levels(bits=3).hold(-member, member)
    assert torch.equal(held.sign(), member.sign()) and 0 < held[0, 0] < 0.01


def test_a_pattern_and_levels_are_one_set_for_a_solver() -> None:
    both = And(of=(Unstructured(sparsity=0.75), Levels(bits=1)))
    assert both.parts() == (both,)
    w = random(8, 32)
    z = both.project(w)
    largest = w.abs().flatten().sort(descending=True).values[:64]
    assert int((z != 0).sum()) == 64 and torch.allclose(z.abs().max(), largest.mean(), rtol=1e-4)
    # Nearest of all: with k weights left, W - Z is least for the k largest.
    assert distance(w, z) == pytest.approx(float(w.square().sum() - 64 * largest.mean() ** 2), rel=1e-4)
    with pytest.raises(UsageError, match="set zeros of levels to 'stay'"):
        And(of=(Unstructured(sparsity=0.75), Levels(bits=1, zeros="level")))


class Small(nn.Module):
    """Two layers, enough to be shaped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).relu().flatten(1))
        return y


def _shaped(model: nn.Module, constraint: Constraint, steps: int = 6) -> None:
    """Shape `model` to the constraint and retrain it a little, checking after every step that it holds."""
    recipe = ow.Recipe(rules=[ow.Rule(targets="all", constraint=constraint)], solver=ow.ADMM(rho=0.1, growth=1.5))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    y = torch.arange(16) % 3
    with ow.Shaper(model, recipe, optimizer, update_every=2) as shaper:
        for step in range(2 * steps):
            if step == steps:
                shaper.harden()
            loss = nn.functional.cross_entropy(model(x), y) + shaper.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            shaper.step()
            assert torch.isfinite(loss)
            if step >= steps:
                assert all(m.constraint.violations(m.weight) == 0 for m in shaper.matches if m.constraint)


def test_bits_are_taken_away_step_by_step_from_what_a_pattern_left() -> None:
    torch.manual_seed(0)
    model = Small()
    pattern = Unstructured(sparsity=0.5)
    _shaped(model, pattern)
    zeros = [model.conv.weight == 0, model.fc.weight == 0]
    for weight, zero in zip((model.conv.weight, model.fc.weight), zeros, strict=True):
        weight.register_hook(lambda gradient, zero=zero: gradient.masked_fill(zero, 0.0))
    for bits in (8, 4, 2, 1):
        _shaped(model, And(of=(pattern, Levels(bits=bits, scheme="nonzero"))))
        for weight, zero in zip((model.conv.weight, model.fc.weight), zeros, strict=True):
            assert torch.equal(weight == 0, zero), "levels without zero leave the pattern as it is"
            assert len(weight.detach().abs().unique()) - 1 <= 2 ** (bits - 1)


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize(("bits", "scheme"), [(1, "uniform"), (3, "uniform"), (3, "nonzero"), (3, "power_of_two")])
def test_settled_levels_do_not_move(bits: int, scheme: str, per: str) -> None:
    open_ = Levels(bits=bits, scheme=scheme, per=per)  # type: ignore[arg-type]
    w = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    member = open_.project(w)
    settled = open_.fixed(member)
    assert settled.fixed(None) == open_ and str(settled) == str(open_) and settled != open_
    assert settled.violations(member) == 0 and torch.equal(settled.project(member), member)
    other = settled.project(3 * w)
    assert settled.violations(other) == 0 and not torch.equal(other, open_.project(3 * w))
    assert settled.violations(1.5 * member) > 0
    assert torch.equal(settled.hold(2 * w, member), member)
    with pytest.raises(ShapeError, match="intervals are settled"):
        settled.project(torch.randn(3, 30)) if per == "channel" else Levels(bits=2, settled=(1.0, 2.0)).project(w)


def test_codebooks_do_not_settle() -> None:
    with pytest.raises(UsageError, match="codebooks have no intervals to settle"):
        Levels(bits=2, scheme="codebook", settled=(1.0,))
    codebook = Levels(bits=2, scheme="codebook")
    assert codebook.fixed(codebook.project(torch.randn(3, 5))) == codebook
