"""2:4 on GPUs: the sparse form is taken where the clock prefers it, and nowhere else; on a GPU, for real."""

import pytest
import torch
from torch import nn

from openwork.compiler.semi_structured import accelerate, is_two_of_four
from openwork.constraints.nm import NM
from openwork.errors import UsageError

ON_GPU = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def network(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 6))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(NM(n=2, m=4).project(layer.weight))
    return model.eval()


class Clock:
    """Says what it is told, in turn, and that the call was made."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)

    def __call__(self, call: object) -> float:
        assert call().shape == (3, 16)  # type: ignore[operator]
        return self.seconds.pop(0)


def test_each_layer_takes_the_form_that_the_clock_prefers() -> None:
    model, x = network(), torch.randn(3, 16)
    wanted, converted = model(x), []

    def convert(weight: torch.Tensor) -> torch.Tensor:
        converted.append(weight.clone())
        return weight.clone()

    first, second, last = accelerate(model, x, clock=Clock(1.0, 0.5, 1.0, 0.99), convert=convert)
    assert (first.layer, first.rows, first.dense, first.sparse, first.taken) == ("0", 3, 1.0, 0.5, True)
    assert (second.taken, second.why) == (False, "dense is as fast or faster")
    assert (last.taken, last.dense, last.why) == (False, None, "its weight is not 2:4")
    assert len(converted) == 2 and not model[0].weight.requires_grad and model[2].weight.requires_grad
    torch.testing.assert_close(model(x), wanted)


def test_what_cannot_be_converted_stays_dense_and_says_why() -> None:
    def convert(weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shape (16, 16) is not supported\nsecond line")

    found = accelerate(network(), torch.randn(3, 16), clock=Clock(), convert=convert)
    assert [t.why for t in found[:2]] == ["shape (16, 16) is not supported"] * 2


def test_layers_that_the_example_does_not_reach_are_said() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    found = accelerate(Spare(), torch.randn(1, 4), clock=Clock(), convert=lambda w: w)
    assert found[1].why == "the example does not reach it"


def test_two_of_four_is_checked_by_its_definition() -> None:
    row = torch.tensor([[1.0, 0, 2, 0, 0, 0, 0, 3]])
    assert is_two_of_four(row) and is_two_of_four(torch.zeros(2, 8))
    assert not is_two_of_four(torch.tensor([[1.0, 2, 3, 0]])) and not is_two_of_four(row[:, :6])
    assert not is_two_of_four(torch.tensor([[0, 0, 0, 0, 0, 1.0, 2, 3]]))


@pytest.mark.skipif(ON_GPU, reason="this machine has such a GPU")
def test_without_a_gpu_the_remedy_is_named() -> None:
    with pytest.raises(UsageError, match=r"needs a CUDA GPU of compute capability 8\.0.*openwork\.compile"):
        accelerate(network(), torch.randn(3, 16))


@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA GPU of compute capability 8.0 or more")
def test_on_a_gpu_outputs_stay() -> None:
    model = network(2048).cuda().half()
    x = torch.randn(256, 2048, device="cuda", dtype=torch.float16)
    wanted = model(x)
    found = accelerate(model, x)
    assert [t.dense is not None for t in found] == [True, True, False]
    torch.testing.assert_close(model(x), wanted, rtol=2e-2, atol=2e-2)
