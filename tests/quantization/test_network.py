"""What is captured computes what the model does; equalization changes weights and no outputs."""

from collections.abc import Callable

import pytest
import torch
from small import attention, images, residual, sentences
from torch import nn

from openwork.errors import CaptureError
from openwork.quantization.equalize import equalize, pairs
from openwork.quantization.network import batch_is_free, captured, layers, left_in_float
from openwork.quantization.places import find_places


def test_the_graph_computes_what_the_model_does_and_shares_nothing() -> None:
    model, (x, *_) = residual(), images()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    network = captured(model, (x[:1],))
    assert [layer.name for layer in layers(network)] == ["stem", "conv1", "conv2", "down", "depth", "point", "head"]
    assert batch_is_free(network)
    torch.testing.assert_close(network(x), model(x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any("bn" in name for name in network.state_dict())


def test_names_in_attention_and_outputs_in_containers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.attend(x, x, x)[0], "x": x}

    model, x = Both().eval(), torch.randn(2, 3, 8)
    network = captured(model, (x,))
    assert [layer.name for layer in layers(network)] == ["attend.in_proj", "attend.out_proj"]
    torch.testing.assert_close(network(x)["y"], model(x)["y"])


def test_a_fixed_batch_and_computed_weights_are_told() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.fc = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(self.fc(x).view(2, 4), self.weight.softmax(1))

    network = captured(Fixed(), (torch.randn(2, 4),))
    assert not batch_is_free(network) and [layer.name for layer in layers(network)] == ["fc"]
    assert left_in_float(network) == [("linear_1", "its weight is computed")]


def test_a_layer_that_is_called_twice_and_one_without_a_name() -> None:
    twice = nn.Linear(4, 4)
    network = captured(nn.Sequential(twice, nn.ReLU(), twice).eval(), (torch.randn(2, 4),))
    assert sorted(layer.name for layer in layers(network)) == ["2", "2_2"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(network(x), twice(twice(x).relu()))
    assert [layer.name for layer in layers(captured(twice, (x,)))] == ["layer"]


def test_what_is_written_into_a_part_of_a_tensor_is_read_by_all() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shifted = torch.zeros_like(x)
            shifted[:, :2] = x[:, 2:]
            shifted[:, 3, 1].fill_(2.0)
            y = self.norm(self.conv(shifted))
            self.act(y.flatten(1))  # y, too
            return y

    torch.manual_seed(0)
    model, x = Shift().eval(), torch.randn(3, 4, 6, 6)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        model.norm.running_var.uniform_(0.5, 2)
    network = captured(model, (x,))
    torch.testing.assert_close(network(x), model(x), rtol=1e-5, atol=1e-5)
    assert [layer.name for layer in layers(network)] == ["conv"] and batch_is_free(network)
    assert not any("norm" in name for name in network.state_dict()), "folded as ever"


@pytest.mark.parametrize("features", [5, 8])
def test_batch_norm_over_tokens_is_not_folded_into_features(features: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, features), nn.BatchNorm1d(8)).eval(), torch.randn(4, 8, 6)
    with torch.no_grad():
        model[1].running_mean.uniform_(-1, 1)
        model[1].running_var.uniform_(0.5, 2)
    torch.testing.assert_close(captured(model, (x,))(x), model(x), rtol=1e-5, atol=1e-5)
    if features == 8:
        rows = torch.randn(4, 6)
        network = captured(model, (rows,))
        torch.testing.assert_close(network(rows), model(rows), rtol=1e-5, atol=1e-5)
        assert not any("running" in name for name in network.state_dict())


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(CaptureError, match="no convolution and no linear layer"):
        captured(nn.ReLU(), (torch.randn(2, 4),))


def test_places_of_a_residual_network() -> None:
    places = find_places(captured(residual(), (images()[0],)))
    # The stem's and each block's ReLU, conv1's, what `down` makes, the depthwise ReLU, the input and the pooled image.
    assert len(places.values) == 7
    names = {name: node.name for name, node in places.inputs.items()}
    assert names["stem"] == "x" and names["conv1"] == names["down"]
    assert "flatten" in names["head"]
    assert any(node.target == "down" for node in places.values), "the shortcut's layer is rounded"
    assert not any(node.target in ("conv2", "point") for node in places.values), "and not the one that takes it along"


@pytest.mark.parametrize("after", [True, False], ids=["post-norm", "pre-norm"])
def test_places_of_a_transformer(after: bool) -> None:
    places = find_places(captured(attention(after), sentences()[0]))
    names = [node.name for node in places.values]
    assert len(names) == 4, names  # two norms, attention's result, the activation
    assert not any(name.startswith(("add", "softmax", "embedding")) for name in names)
    assert sum(name.startswith("layer_norm") for name in names) == 2


def test_an_image_whose_means_a_layer_reads_is_rounded_unless_something_else_reads_it() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    places = find_places(captured(nn.Sequential(*layers).eval(), (images()[0],)))
    assert len(places.values) == 3 and places.values[1].target == torch.ops.aten.relu.default
    head = nn.Sequential(nn.Softmax(1), *layers[2:])
    places = find_places(captured(nn.Sequential(layers[0], head).eval(), (images()[0],)))
    assert len(places.values) == 3, "what the means are of is rounded"

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.body(x)
            return self.head(x), x.exp()

    assert len(find_places(captured(Both().eval(), (images()[0],))).values) == 2


def test_layers_left_out_need_no_places() -> None:
    network = captured(residual(), (images()[0],))
    assert "head" not in find_places(network, ["head"]).inputs
    assert len(find_places(network, ["head"]).values) == 6


class Mean(nn.Module):
    """Over an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.axis)


def _chain(*modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*modules).eval()


@pytest.mark.parametrize(
    ("model", "shape", "found"),
    [
        (residual, (3, 8, 8), [("conv1", "conv2"), ("depth", "point")]),
        (
            _chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)),
            (3, 8, 8),
            [("0", "2"), ("2", "3")],
        ),
        (_chain(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 1)), (3, 8, 8), []),
        (
            _chain(
                *(
                    nn.Conv2d(3, 4, 3),
                    nn.AdaptiveAvgPool2d(2),
                    nn.Flatten(),
                    nn.Linear(16, 5),
                    nn.ReLU(),
                    nn.Linear(5, 2),
                )
            ),
            (3, 8, 8),
            [("0", "3"), ("3", "5")],
        ),
        (_chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)), (3, 8, 8), []),
        (_chain(nn.Conv2d(3, 6, 3), nn.Linear(6, 5)), (3, 8, 8), []),
        (_chain(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2)), (6,), []),
        (_chain(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), Mean(1), nn.Linear(16, 2)), (3, 16), []),
        (_chain(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), Mean(2), nn.Linear(8, 2)), (3, 16), [("0", "3")]),
        (_chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(2), Mean(1), nn.Linear(36, 2)), (3, 8, 8), []),
    ],
    ids=["residual", "depthwise", "relu6", "flatten", "groups", "columns", "gelu", "channels", "space", "both"],
)
def test_equalization_leaves_outputs_as_they_are(
    model: Callable[[], nn.Module], shape: tuple[int, ...], found: list[tuple[str, str]]
) -> None:
    torch.manual_seed(0)
    original, x = model(), torch.randn(4, *shape)
    with torch.no_grad():
        for parameter in original.parameters():  # ranges that differ from channel to channel
            parameter.mul_(torch.rand(len(parameter)).mul(4).exp().view(-1, *[1] * (parameter.dim() - 1)))
    network = captured(original, (x,))
    assert [(pair.first.name, pair.second.name) for pair in equalize(network)] == found
    y = original(x).detach()
    assert float((network(x).detach() - y).abs().max() / y.abs().max()) < 1e-5
    for pair in pairs(network):
        first = pair.first.module.weight.flatten(1).abs().amax(1)
        weight = pair.second.module.weight
        depthwise = weight.shape[1] == 1
        second = (
            weight.flatten(1).abs().amax(1)
            if depthwise
            else weight.view(len(weight), len(first), -1).abs().amax((0, 2))
        )
        torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-5)
