"""Networks that round their activations, with weights on grids: the numbers are such that float32 has no roundings, so
that an engine with integers must give PyTorch's outputs bit by bit."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from small_models import inputs
from torch import Tensor, nn

import openwork
from openwork.quantization import rounding
from openwork.quantization.rounding import Grid

UNSIGNED, SIGNED = (0, 255), (-127, 127)


class Round(nn.Module):
    """Rounds to multiples of `scale` within `bounds`."""

    def __init__(self, scale: float = 2**-4, bounds: tuple[int, int] = UNSIGNED) -> None:
        super().__init__()
        self.scale, self.bounds = scale, bounds

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, *self.bounds)


def signed(scale: float = 2**-5) -> Round:
    """Rounds values of both signs."""
    return Round(scale, SIGNED)


def whole(model: nn.Module, largest: int = 127, sparsity: float = 0.0, seed: int = 0) -> nn.Module:
    """Gives layers whole numbers up to `largest` times a power of two for each output, and biases without roundings."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            k = torch.randint(-largest, largest + 1, weight.shape, generator=random).float()
            k[torch.rand(weight.shape, generator=random) < sparsity] = 0
            step = 2.0 ** -torch.randint(9, 12, (len(weight),), generator=random).float()
            module.weight.data = k * step.view(-1, *[1] * (weight.ndim - 1))
            if module.bias is not None:
                module.bias.data = torch.randint(-64, 65, module.bias.shape, generator=random) * 2.0**-7
    return model.eval()


def rows(engine: openwork.Engine) -> list[dict[str, object]]:
    """What `explain` says of layers."""
    return [row for row in engine.explain(repeats=1).rows if row["weights"]]


def ops(engine: openwork.Engine) -> list[str]:
    """The steps, without those that write zeros."""
    return [step.op for step in engine.artifact.program.steps if step.op != "clear"]


def assert_same(engine: openwork.Engine, model: nn.Module, *shapes: tuple[int, ...], seed: int = 1) -> None:
    """Engine and model give the same bits on inputs that the compiler has not seen."""
    x = inputs(*shapes, seed=seed)
    with torch.no_grad():
        wanted = model(*x)
    found = engine(*x)
    different = (found != wanted).sum()
    assert found.shape == wanted.shape and not different, f"{different} of {found.numel()} outputs differ"
    assert len(wanted.unique()) > 3, "this says nothing"


def named(*layers: nn.Module) -> nn.Sequential:
    """A chain of layers."""
    return nn.Sequential(OrderedDict((f"{type(m).__name__.lower()}{i}", m) for i, m in enumerate(layers)))


def simulate(model: nn.Module, x: Tensor, bits: int) -> nn.Module:
    """Rounds weights for each channel, and the inputs of all layers in ranges that hold what `x` makes of them."""
    found: dict[str, Grid] = {}

    def seen(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda _, given: found.update({name: _grid(given[0], bits)})

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            step = weight.flatten(1).abs().amax(1).clamp(min=1e-8) / (2 ** (bits - 1) - 1)
            step = step.view(-1, *[1] * (weight.ndim - 1))
            module.weight.data = (weight / step).round() * step
            hooks.append(module.register_forward_pre_hook(seen(name)))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return rounding.simulate(model, found)


def _grid(x: Tensor, bits: int) -> Grid:
    return Grid.of(float(x.abs().max()), bits, signed=float(x.min()) < 0)
