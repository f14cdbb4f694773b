"""What an attacker on the training data gains: its bounds, the best attacker, and the game with a network that is
pruned."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.errors import UsageError
from openwork.solvers._membership import membership_gain


def test_guessing_is_minus_log_two_and_nothing_is_above_zero() -> None:
    assert float(membership_gain(torch.zeros(3), torch.zeros(5, 1))) == pytest.approx(-math.log(2))
    g = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 100.0):
        logits = scale * torch.randn(2, 50, generator=g)
        assert membership_gain(*logits) <= 0
        # Who is called a member is a matter of names.
        assert float(membership_gain(*logits)) == pytest.approx(float(membership_gain(-logits[1], -logits[0])))
    assert float(membership_gain(torch.full((4,), 200.0), torch.full((4,), -200.0))) == 0.0
    assert membership_gain(torch.full((4,), -200.0), torch.zeros(4)).isfinite()


def test_the_best_attacker_is_the_share_of_members() -> None:
    """Three symbols, seen with frequencies p among members and q among others: h = p / (p + q)."""
    p, q = torch.tensor([6, 3, 1]), torch.tensor([2, 3, 5])
    seen = [torch.arange(3).repeat_interleave(count) for count in (p, q)]
    logits = torch.zeros(3, requires_grad=True)
    for _ in range(2000):
        (slope,) = torch.autograd.grad(membership_gain(*(logits[symbols] for symbols in seen)), logits)
        logits.data += 2 * slope
    assert torch.allclose(logits.sigmoid(), p / (p + q), atol=1e-4)


def play(weight: float, attacks: int) -> tuple[dict[str, Tensor], nn.Module, list[float]]:
    """A network that is shaped and retrained while an attacker plays against it; its weights and what is gained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    members, others = ((torch.randn(32, 6), torch.randint(0, 3, (32,))) for _ in range(2))
    with torch.random.fork_rng():
        attacker = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    recipe = ow.Recipe(
        rules=[ow.Rule(targets="all", constraint=ow.Unstructured(sparsity=0.5))], solver=ow.ADMM(rho=0.1)
    )
    optimizer, its = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(attacker.parameters(), lr=0.02)
    gains = []

    def gain() -> Tensor:
        model.eval()
        said = (torch.cat([model(x).softmax(1), nn.functional.one_hot(y, 3)], 1) for x, y in (members, others))
        found = membership_gain(*map(attacker, said))
        model.train()
        return found

    with ow.Shaper(model, recipe, optimizer, update_every=5) as shaper:
        for step in range(30):
            if step == 20:
                shaper.harden()
            before, theirs = copy.deepcopy(model.state_dict()), copy.deepcopy(attacker.state_dict())
            for _ in range(attacks):
                its.zero_grad()
                (-gain()).backward()
                its.step()
            assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
            theirs = copy.deepcopy(attacker.state_dict())
            loss = nn.functional.cross_entropy(model(members[0]), members[1]) + shaper.penalty()
            if weight:
                loss = loss + weight * gain()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shaper.step()
            assert all(torch.equal(theirs[name], value) for name, value in attacker.state_dict().items())
            gains.append(gain().item())
            if step >= 20:
                assert all(int(m.weight.count_nonzero()) <= m.weight.numel() / 2 for m in (model[0], model[4]))
    return model.state_dict(), attacker, gains


def test_without_weight_the_game_changes_nothing_and_with_it_the_attacker_gains_less() -> None:
    plain, free = play(0.0, attacks=0), play(0.0, attacks=3)
    assert all(torch.equal(plain[0][name], value) for name, value in free[0].items()), "bit for bit"
    defended = play(5.0, attacks=3)
    assert any(not torch.equal(plain[0][name], value) for name, value in defended[0].items())
    assert defended[2][-1] < free[2][-1] <= 0


def test_both_sides_must_be_there() -> None:
    with pytest.raises(UsageError, match="0 members and 4 others; give at least one of each"):
        membership_gain(torch.zeros(0), torch.zeros(4))
