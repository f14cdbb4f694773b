"""Small networks, random zeros in their weights, and the comparison of an engine with PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import openwork
from openwork.compiler import candidates

TOLERANCE = 1e-4
"""Relative to the largest output."""


class Calls(nn.Module):
    """A network written as a function: `function(layers, *inputs)`."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.layers, *inputs)


def lively(model: nn.Module, sparsity: float = 0.0, seed: int = 0) -> nn.Module:
    """The model with random batch norm statistics and a random share of zeros among its weights, in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=random)
        elif sparsity and isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            weight[torch.rand(weight.shape, generator=random) < sparsity] = 0
    return model.eval()


def winograd_everywhere(monkeypatch: Any, m: int) -> None:
    """From now on untuned layers are Winograd's convolution of m x m tiles wherever that is possible."""
    guess = candidates.first

    def chosen(draft: Any, base: Any, threads: int, isa: str) -> candidates.Choice:
        for choice in candidates._packings(draft, base, isa):
            if choice.op == "winograd" and choice.tile[0] == m:
                return next(candidates.tiles(draft, base, choice, threads, isa))
        return guess(draft, base, threads, isa)

    monkeypatch.setattr("openwork.compiler.tune.first", chosen)


def inputs(*shapes: tuple[int, ...], seed: int = 1) -> tuple[Tensor, ...]:
    """Random inputs."""
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=random) for shape in shapes)


def compiled(model: nn.Module, *shapes: tuple[int, ...], **options: Any) -> openwork.Engine:
    """An engine laid out for the shapes, untuned, on one thread."""
    return openwork.compile(model, inputs(*shapes, seed=2), **{"threads": 1, "tune": "off", **options})


def outputs_of(result: Any) -> list[Tensor]:
    """One tensor, or a tuple of them, as a list."""
    return [result] if isinstance(result, Tensor) else list(result)


def assert_agrees(
    engine: openwork.Engine, model: nn.Module, *shapes: tuple[int, ...], names: Sequence[str] = ()
) -> None:
    """Engine and model give the same outputs for inputs that the compiler has not seen; `names` of the outputs."""
    assert_agrees_on(engine, model, inputs(*shapes), names)


def assert_agrees_on(
    engine: openwork.Engine, model: nn.Module, x: tuple[Tensor, ...], names: Sequence[str] = ()
) -> None:
    """Engine and model give the same outputs for `x`."""
    with torch.no_grad():
        wanted = outputs_of(model(*x))
    found = outputs_of(engine(*x))
    assert [f.shape for f in found] == [w.shape for w in wanted]
    for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        error = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)
        assert error <= TOLERANCE, f"output {names[i] if names else i}: relative error {error:.2g}"


def left_to_torch(engine: openwork.Engine) -> list[str]:
    """Operators that PyTorch runs, as `explain()` names them."""
    return [row["kernel"] for row in engine.explain(repeats=1).rows if row["op"] == "torch"]
