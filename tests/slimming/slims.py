"""Networks with zeros in them, and `slim` with its promises checked, for tests of what it finds."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from openwork.slimming.slim import Row, Slimmed, slim

X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(5))


class Calls(nn.Module):
    """A network written as a function of its layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases and statistics, in evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.is_floating_point():
                low, high = (0.5, 1.5) if name == "running_var" else (-1.0, 1.0)
                tensor.data.uniform_(low, high, generator=g)
    return model.eval()


@torch.no_grad()
def without(layer: nn.Module, outputs: Sequence[int] = (), inputs: Sequence[int] = (), bias: bool = False) -> None:
    """Zero some filters and input channels of a layer, with the biases if asked for."""
    layer.weight[list(outputs)] = 0
    layer.weight[:, list(inputs)] = 0
    if bias:
        layer.bias[list(outputs)] = 0


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


def slimmed(model: nn.Module, x: Tensor = X, **options: object) -> Slimmed:
    """`slim`, checked: other inputs than it saw, the model untouched, nothing more to find."""
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = slim(model, x, **options)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items()), "the model was changed"
    other = x.flip(0).roll(1, -1) * 1.3 + 0.1
    expected, ours = outputs(model, other), outputs(found.model, other)
    assert (ours - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert found.model.state_dict().keys() >= before.keys(), "names have changed"
    again = slim(found.model, x, **options)
    assert [row.after for row in again.rows] == [row.before for row in again.rows], "a second call finds more"
    assert sum(p.numel() for p in again.model.parameters()) == sum(p.numel() for p in found.model.parameters())
    return found


def row(found: Slimmed, name: str) -> Row:
    return next(r for r in found.rows if r.name == name)


def shapes(found: Slimmed) -> list[tuple[int, ...]]:
    return [r.after for r in found.rows]
