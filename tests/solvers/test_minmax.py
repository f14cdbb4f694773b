"""Min-max: projections against their conditions, and saddles that are known."""

import itertools

import pytest
import torch
from torch import Tensor

import openwork
from openwork.errors import UsageError
from openwork.solvers._minmax import ball, minmax, reweigh, simplex


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_simplex_projection_satisfies_its_conditions() -> None:
    """KKT: w = max(v - mu, 0) for one mu, and sum 1: of a convex problem that is the answer."""
    for seed in range(50):
        v = 3 * drawn(seed, 6)
        w = simplex(v)
        assert bool((w >= 0).all()) and float(w.sum()) == pytest.approx(1, abs=1e-9)
        inside = w > 0
        mu = float((v - w)[inside].mean())
        assert torch.allclose((v - w)[inside], torch.tensor(mu, dtype=v.dtype))
        assert bool((v[~inside] <= mu + 1e-12).all())
        assert torch.allclose(simplex(w), w) and torch.allclose(simplex(v + 7.5), w)


def test_the_simplex_projection_is_the_nearest_point() -> None:
    """Brute force over which entries are zero; with that settled, the nearest point has a closed form."""
    for seed in range(20):
        v = 2 * drawn(seed, 4)
        best = torch.inf
        for keep in itertools.product((False, True), repeat=4):
            flags = torch.tensor(keep)
            if any(keep):
                w = torch.where(flags, v - (v[flags].sum() - 1) / flags.sum(), 0.0)
                best = min(best, float((w - v).norm())) if bool((w >= 0).all()) else best
        assert float((simplex(v) - v).norm()) == pytest.approx(best)
    rows = drawn(0, 5, 3)
    assert torch.allclose(simplex(rows), torch.stack([simplex(row) for row in rows]))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("boxed", [False, True], ids=["ball", "ball and box"])
def test_the_ball_projection_is_feasible_and_nearest(norm: str, boxed: bool) -> None:
    grid = torch.cartesian_prod(*[torch.linspace(-1.2, 1.2, 49, dtype=torch.float64)] * 2)
    for seed in range(20):
        v = 2 * drawn(seed, 2)
        low, high = (-0.3 - 0.5 * drawn(seed + 50, 2).abs(), drawn(seed + 90, 2).abs()) if boxed else (None, None)
        x = ball(v, 0.8, norm, low, high)  # type: ignore[arg-type]
        order = 2 if norm == "l2" else torch.inf
        assert float(x.norm(p=order)) <= 0.8 + 1e-9
        inside = grid.norm(p=order, dim=1) <= 0.8
        if low is not None and high is not None:
            assert bool((x >= low).all() and (x <= high).all())
            inside &= ((grid >= low) & (grid <= high)).all(1)
        assert float((x - v).norm()) <= float((grid[inside] - v).norm(dim=1).min()) + 1e-9
        # Obtuse angle: the condition for the nearest point of a convex set.
        assert float(((grid[inside] - x) @ (v - x)).max()) <= 1e-7
        assert torch.allclose(ball(x, 0.8, norm, low, high), x, atol=1e-9)  # type: ignore[arg-type]


def test_a_saddle_that_is_known_is_found() -> None:
    """F_i = <a_i, v> + 1/2 ||v||^2: v = -A'w, and inside the simplex (A A' + gamma I) w = gamma/K + mu."""
    a, gamma = 0.3 * drawn(3, 3, 4), 2.0
    matrix = a @ a.T + gamma * torch.eye(3, dtype=a.dtype)
    ones = torch.ones(3, dtype=a.dtype)
    some, every = torch.linalg.solve(matrix, gamma / 3 * ones), torch.linalg.solve(matrix, ones)
    w = some + every * ((1 - some.sum()) / every.sum())
    assert bool((w > 0.05).all()) and float((w - 1 / 3).abs().max()) > 0.005, "a saddle inside, not at equal weights"
    found = minmax(
        lambda v: a @ v + 0.5 * v.square().sum(), torch.ones(4, dtype=a.dtype), steps=500, ascent=0.1, gamma=gamma
    )
    assert torch.allclose(found.weights, w, atol=1e-8) and torch.allclose(found.point, -a.T @ w, atol=1e-8)
    assert torch.allclose(found.losses, a @ found.point + 0.5 * found.point.square().sum())


def test_without_a_regularizer_the_worst_loss_is_minimal() -> None:
    """The middle of the smallest circle around points: at the saddle the losses with weight are equal."""
    places = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 3.0], [2.0, 0.5]], dtype=torch.float64)
    found = minmax(
        lambda v: (places - v).square().sum(1), torch.zeros(2, dtype=torch.float64), steps=5000, ascent=0.005
    )
    # Of the isosceles triangle: the circumcentre, at distance 13/6 from the corners.
    assert torch.allclose(found.point, torch.tensor([2.0, 5 / 6], dtype=torch.float64), atol=1e-3)
    assert torch.allclose(found.losses[:3], torch.tensor((13 / 6) ** 2, dtype=torch.float64), atol=1e-2)
    assert float(found.weights[3]) < 1e-6


def test_weights_between_equal_and_one_hot() -> None:
    losses = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)

    def settled(gamma: float, ascent: float) -> Tensor:
        w = torch.full((3,), 1 / 3, dtype=torch.float64)
        for _ in range(2000):
            w = reweigh(w, losses, ascent, gamma)
        return w

    assert torch.allclose(settled(0.0, 0.01), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(settled(1e4, 1e-4), torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(settled(5.0, 0.1), simplex(1 / 3 + losses / 5))
    equal = reweigh(torch.full((3,), 1 / 3), torch.full((3,), 2.0), 0.5, 1.0)
    assert torch.allclose(equal, torch.full((3,), 1 / 3))


def test_one_loss_is_projected_gradient_descent() -> None:
    target, v = torch.tensor([2.0, 0.1]), torch.zeros(2)
    found = minmax(lambda v: (v - target).square().sum()[None], v, steps=7, descent=0.2, radius=0.5)
    for _ in range(7):
        v = (v - 0.2 * 2 * (v - target)).clamp(-0.5, 0.5)
    assert torch.equal(found.point, v) and found.weights.tolist() == [1.0]


def test_directions_of_both_steps() -> None:
    a = drawn(1, 3, 4)
    start, w = torch.ones(4, dtype=a.dtype), torch.full((3,), 1 / 3, dtype=a.dtype)

    def losses(v: Tensor) -> Tensor:
        return (a @ v).square()

    after = minmax(losses, start, steps=1, descent=1e-3, ascent=1e-3, gamma=0.5)
    assert float(w @ losses(after.point)) < float(w @ losses(start))

    def regularized(w: Tensor) -> float:
        return float(w @ after.losses - 0.25 * (w - 1 / 3).square().sum())

    assert regularized(after.weights) > regularized(w)


def test_losses_are_evaluated_once_at_each_point() -> None:
    points: list[Tensor] = []

    def losses(v: Tensor) -> Tensor:
        points.append(v.detach().clone())
        return torch.stack([v.square().sum(), (v - 1).square().sum()])

    found = minmax(losses, drawn(0, 3), steps=5)
    assert len(points) == 6 and torch.equal(points[-1], found.point)
    assert not any(t.requires_grad for t in found)


def test_the_start_and_outer_gradients_stay_as_they_are() -> None:
    start, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    with torch.no_grad():
        found = minmax(lambda v: torch.stack([(weight * v).sum(), -(weight * v).sum()]), start, steps=3)
    assert torch.equal(start, torch.ones(2)) and weight.grad is None and not found.point.requires_grad
    assert openwork.minmax is minmax and openwork.reweigh is reweigh


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"descent": 0.0}, "descent=0 and ascent=0.1 must be positive"),
        ({"gamma": -1.0}, "gamma=-1 must not be negative"),
        ({"radius": 0.0}, "radius=0 must be positive"),
        ({"norm": "l1"}, "norm='l1' is not one of l2, linf"),
        ({"low": 1.0, "high": 0.0}, "low is above high"),
        ({"low": 1.0, "radius": 0.5}, "raise radius"),
        ({"low": 1.0, "radius": 0.5, "norm": "l2"}, "raise radius"),
        ({"descent": 1e30}, "lower descent, or bound v with radius"),
    ],
)
def test_wrong_numbers_are_named(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        minmax(lambda v: torch.stack([v.square().sum(), (v**4).sum()]), torch.ones(2), **arguments)  # type: ignore[arg-type]


def test_losses_that_are_no_vector_are_named() -> None:
    with pytest.raises(UsageError, match=r"losses gave a tensor of shape \[\]; give \[K\]"):
        minmax(lambda v: v.sum(), torch.ones(2))
