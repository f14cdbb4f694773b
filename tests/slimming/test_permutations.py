"""Orders of channels move into the layers before, and the network computes what it did."""

import copy
import re

import pytest
import torch
from torch import nn

from openwork.constraints.nm import NM
from openwork.errors import ModelError, UsageError
from openwork.slimming.permutations import Pushed, push


def order(channels: int, seed: int = 1) -> tuple[int, ...]:
    return tuple(torch.randperm(channels, generator=torch.Generator().manual_seed(seed)).tolist())


def lively(model: nn.Module) -> nn.Module:
    """Batch norm and everything else as after training: no two channels are alike."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.dim() == 1 else torch.randn_like(tensor) * 0.3)
    return model.double().eval()


CHAINS = {
    "convolutions": nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.Flatten()
    ),
    "a depthwise one between": nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
    ),
    "one slope for all": nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.PReLU(), nn.Dropout(), nn.Conv2d(8, 4, 1)),
    "linear": nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_outputs_stay_and_weights_lie_in_the_order(chain: nn.Module) -> None:
    model = lively(copy.deepcopy(chain))
    last = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
    weight = dict(model.named_modules())[last].weight.detach().clone()
    x = torch.randn(2, *((6,) if isinstance(model[0], nn.Linear) else (3, 12, 12)), dtype=torch.float64)
    with torch.no_grad():
        before = model(x)
        assert push(model, {last: order(8)}) == (Pushed(last, "0"),)
        assert torch.equal(dict(model.named_modules())[last].weight, weight[:, list(order(8))])
        torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)


def test_a_layer_may_be_producer_and_reader() -> None:
    model = lively(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)))
    x = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        before = model(x)
        assert push(model, {"2": order(8), "4": order(8, 2)}) == (Pushed("2", "0"), Pushed("4", "2"))
        torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)


def test_two_of_four_that_holds_in_an_order_holds_in_memory_afterwards() -> None:
    model = lively(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6)))
    at, two = list(order(8)), NM(n=2, m=4)
    inverse = torch.argsort(torch.tensor(at))
    with torch.no_grad():
        model[2].weight.copy_(two.project(model[2].weight[:, at])[:, inverse])
    assert two.violations(model[2].weight) > 0
    push(model, {"2": at})
    assert two.violations(model[2].weight) == 0


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.third(x + self.second(x))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.shared = nn.Conv2d(3, 4, 1), nn.Linear(16, 8), nn.Linear(8, 8)
        self.soft, self.last = nn.Softmax(1), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).flatten(1))
        return self.last(self.soft(self.shared(self.shared(x))))


@pytest.mark.parametrize(
    ("model", "layer", "why"),
    [
        (Residual(), "second", r"what relu computes is read by"),
        (Residual(), "third", r"add \(call_function\) is not known"),
        (Mixed(), "first", r"x \(placeholder\) is not known"),
        (Mixed(), "second", r"flatten \(call_method\) is not known to keep channels apart"),
        (Mixed(), "shared", r"shared is called 2 times"),
        (Mixed(), "last", r"soft \(Softmax\) is not known to keep channels apart"),
        (
            nn.Sequential(nn.Linear(8, 6), nn.MaxPool1d(3, 1, 1), nn.Linear(6, 4)),
            "2",
            r"1 pools what the linear layer 0",
        ),
        (nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(5), nn.Linear(6, 4)), "2", r"has 5 channels instead of 6"),
    ],
)
def test_what_cannot_move_is_left_and_said(model: nn.Module, layer: str, why: str) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    channels = dict(model.named_modules())[layer].weight.shape[1]
    (found,) = push(model, {layer: order(channels)})
    assert found.producer is None and re.search(why, found.why)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("layer", "wrong", "words"),
    [
        ("0", (0, 1), r"not a permutation of its 3 input channels"),
        ("0", (0, 1, 1), r"not a permutation of its 3 input channels"),
        ("1", (0, 1, 2), r"'1' is not a linear layer or a convolution without groups"),
        ("none", (0,), r"'none' is not a linear layer"),
    ],
)
def test_mistakes_name_the_layer(layer: str, wrong: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        push(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), {layer: wrong})


def test_a_model_that_cannot_be_traced_is_named() -> None:
    class Undecided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) if x.sum() > 0 else x

    with pytest.raises(ModelError, match="Undecided cannot be traced"):
        push(Undecided(), {"fc": (1, 0, 2, 3)})
