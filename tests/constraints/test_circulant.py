"""Block-circulant weights: the worked examples, the nearest member, and what a projection of a linear space owes."""

import pytest
import torch
from torch import Tensor

from openwork.constraints.circulant import Circulant
from openwork.errors import ShapeError

SIZES = [(2, (4, 4)), (4, (8, 4)), (4, (7, 10)), (3, (6, 7)), (4, (5, 6, 3, 2)), (8, (9, 9))]
every_size = pytest.mark.parametrize(("block", "shape"), SIZES, ids=str)


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generators(block: int, shape: tuple[int, ...]) -> Tensor:
    """Members that have ones on one diagonal of one block: [count, weights]. All members are sums of multiples."""
    found, (out, inputs) = [], shape[:2]
    for position in range(torch.Size(shape[2:]).numel()):
        for i in range(0, out, block):
            for j in range(0, inputs, block):
                for k in range(block):
                    w = torch.zeros(out, inputs, torch.Size(shape[2:]).numel(), dtype=torch.float64)
                    for row in range(i, min(i + block, out)):
                        for column in range(j, min(j + block, inputs)):
                            w[row, column, position] = (row - column - k) % block == 0
                    found.append(w.flatten())
    return torch.stack(found)


def test_the_worked_example_and_the_first_column_beside_it() -> None:
    w = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
    mean, first = Circulant(block=2).project(w), Circulant(block=2, rule="first").project(w)
    assert torch.equal(mean, torch.tensor([[1.5, 4.0], [4.0, 1.5]])) and (w - mean).square().sum() == 2.5
    assert torch.equal(first, torch.tensor([[1.0, 3.0], [3.0, 1.0]])) and (w - first).square().sum() == 5.0


@every_size
def test_the_mean_is_the_nearest_member(block: int, shape: tuple[int, ...]) -> None:
    """Oracle: least squares over the members that have a single diagonal."""
    w, space = random(shape), generators(block, shape)
    nearest = space.T @ torch.linalg.lstsq(space.T, w.flatten(), driver="gelsd").solution
    torch.testing.assert_close(Circulant(block=block).project(w).flatten(), nearest)


@every_size
def test_what_is_taken_away_is_orthogonal_to_every_member(block: int, shape: tuple[int, ...]) -> None:
    w = random(shape)
    rest = (w - Circulant(block=block).project(w)).flatten()
    assert (generators(block, shape) @ rest).abs().max() < 1e-12


@every_size
def test_the_projection_is_linear_and_self_adjoint_and_keeps_the_mean(block: int, shape: tuple[int, ...]) -> None:
    project, a, b = Circulant(block=block).project, random(shape), random(shape, 1)
    torch.testing.assert_close(project(2 * a - b), 2 * project(a) - project(b))
    torch.testing.assert_close((project(a) * b).sum(), (a * project(b)).sum())
    torch.testing.assert_close(project(a).mean(), a.mean())


@every_size
def test_the_first_weight_is_never_nearer(block: int, shape: tuple[int, ...]) -> None:
    for seed in range(10):
        w = random(shape, seed)
        mean, first = (Circulant(block=block, rule=rule).project(w) for rule in ("mean", "first"))  # type: ignore[arg-type]
        assert (w - mean).norm() < (w - first).norm()
        assert Circulant(block=block).violations(first) == 0
        assert torch.equal(Circulant(block=block, rule="first").project(mean), mean)


def test_the_first_column_settles_a_whole_block() -> None:
    w = random((8, 8))
    z = Circulant(block=4, rule="first").project(w)
    assert torch.equal(z[:, 0], w[:, 0]) and torch.equal(z[:, 4], w[:, 4])
    assert torch.equal(z[:4, 1], w[:4, 0].roll(1)), "a column is the one before it, turned by one"


def test_a_circulant_block_multiplies_as_a_convolution_around_a_circle() -> None:
    w, x = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, -1.0, 2.0])
    block = Circulant(block=4, rule="first").project(w[:, None].expand(4, 4))
    assert (block @ x).tolist() == [2, 4, 10, 4]
    torch.testing.assert_close(block @ x, torch.fft.irfft(torch.fft.rfft(w) * torch.fft.rfft(x), n=4))
    torch.testing.assert_close(block.square().sum(), 4 * w.square().sum())


def test_kernel_positions_do_not_mix() -> None:
    w = random((4, 8, 3, 3))
    z = Circulant(block=4).project(w)
    for y in range(3):
        for x in range(3):
            torch.testing.assert_close(z[:, :, y, x], Circulant(block=4).project(w[:, :, y, x]))


def test_violations_count_weights_that_differ_from_their_diagonal() -> None:
    w = Circulant(block=4).project(random((8, 8)))
    w[1, 1] += 1
    assert Circulant(block=4).violations(w) == 1
    w[0, 0] += 2  # now the first of the diagonal differs from all others
    assert Circulant(block=4).violations(w) == 3


def test_retraining_takes_the_mean_whatever_the_rule() -> None:
    w = random((8, 8))
    assert torch.equal(Circulant(block=4, rule="first").hold(w, w), Circulant(block=4).project(w))


@pytest.mark.parametrize("shape", [(16, 1, 3, 3), (2, 16)])
def test_layers_smaller_than_a_block_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"block = 4 is more than the \d+ outputs or \d+ inputs .* set on_misfit to skip"
    ):
        Circulant(block=4).project(torch.ones(shape))
