"""Networks to measure: zoo models with random weights, sparse in any of the patterns that the field measures.

Latency depends on where the zeros are, not on what the other weights are. Accuracy is measured where training is
(`openwork compress`), not here.
"""

import torch
from torch import Tensor, nn

import openwork
from openwork import models
from openwork.constraints.block import Block
from openwork.constraints.channel_block import ChannelBlock
from openwork.constraints.filter import Filter
from openwork.constraints.pattern import Pattern
from openwork.constraints.unstructured import Unstructured

PATTERNS = ("unstructured", "4x1", "8x1", "filter", "kernel")
"""Kernel-wise: whole 3x3 kernels, one for each (output, input) pair, are zero."""

INT8_BLOCKS = "4x4"
"""Outputs by input channels: blocks that suit layers of bytes, which take four channels at once."""

CALIBRATION = 2
"""Images from which batch norm takes its averages."""

SAMPLES = 16
"""Random inputs from which the ranges of activations come in int8: enough for latency, no help to accuracy."""

CONNECTIVITY = 3.6
"""PatDNN's second pruning: one of 3.6 kernels stays. With 4 of 9 entries in each that makes 8x."""


def network(name: str, pattern: str = "dense", sparsity: float = 0.0, seed: int = 0) -> nn.Module:
    """A zoo model in evaluation mode, its layers but for the first pruned in `pattern`, activations of healthy size."""
    torch.manual_seed(seed)
    model = models.resolve(name, weights=None)
    with torch.no_grad():
        if pattern == "patdnn":
            patdnn(model)
        elif pattern != "dense":
            prune(model, pattern, sparsity)
        settle(model, name)
    return model.eval()


def in_int8(model: nn.Module, name: str) -> nn.Module:
    """The network with weights and activations of 8 bits."""
    samples = models.example_inputs(name, batch=SAMPLES)
    one = models.example_inputs(name)
    return openwork.quantize(model, [samples], one, observer="minmax", weights="max", correct_bias=False, measured=0)


def weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Weights that pruning applies to: of convolutions that are not depthwise, linear and recurrent layers; not the
    first of them, which sees the image."""
    found = [
        (f"{name}.{key}", value)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.GRU | nn.LSTM)
        for key, value in module.named_parameters(recurse=False)
        if value.dim() > 1 and getattr(module, "groups", 1) == 1
    ]
    return found[1:]


def prune(model: nn.Module, pattern: str, sparsity: float) -> None:
    """Zero the weakest weights, blocks, filters or kernels of every layer that the pattern fits."""
    layers = weights(model)
    # The outputs of the last layer are what the network says: whole rows of it cannot go.
    for _, weight in layers[:-1] if pattern == "filter" else layers:
        weight.copy_(pruned(weight, pattern, sparsity))


def pruned(weight: Tensor, pattern: str, sparsity: float) -> Tensor:
    """The nearest weight in the pattern; one that the pattern does not fit is returned as it is."""
    if pattern == "kernel":
        kept = weight.flatten(2).norm(dim=2) if weight.dim() > 2 else weight.abs()
        mask = Unstructured(sparsity=sparsity).mask(kept)
        return weight * mask.view(*mask.shape, *[1] * (weight.dim() - 2))
    if pattern in ("4x1", "8x1"):
        rows = int(pattern[0])
        return Block(shape=(rows, 1), sparsity=sparsity).project(weight) if len(weight) % rows == 0 else weight
    if pattern == INT8_BLOCKS:
        fits = len(weight) % 4 == 0 and weight.shape[1] % 4 == 0
        return ChannelBlock(shape=(4, 4), sparsity=sparsity).project(weight) if fits else weight
    return {"unstructured": Unstructured, "filter": Filter}[pattern](sparsity=sparsity).project(weight)


def patdnn(model: nn.Module) -> None:
    """3x3 kernels keep four entries, in one of the eight patterns that suit the network best, and one of 3.6 kernels
    stays; the first layer keeps all kernels. Linear layers, which PatDNN does not treat, get the same 8x in 4x1 blocks.

    Source: Niu et al. 2020, arXiv:2001.00138, sections 4.1 and 4.2.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups == 1]
    for at, (layer, pattern) in enumerate(zip(layers, Pattern().fitted([m.weight for m in layers]), strict=True)):
        kept = pattern.project(layer.weight)
        layer.weight.copy_(pruned(kept, "kernel", 1 - 1 / CONNECTIVITY) if at else kept)
    for module in model.modules():
        if isinstance(module, nn.Linear) and len(module.weight) % 4 == 0:
            module.weight.copy_(pruned(module.weight, "4x1", 1 - 1 / 8))


def settle(model: nn.Module, name: str) -> None:
    """Give batch norm the averages of what it sees, as training would: random weights alone let activations vanish or
    grow over the layers, down to numbers that CPUs handle slowly and no error can be seen in."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        if not any(isinstance(m, nn.LayerNorm) for m in model.modules()):
            even(model, name)
        return
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
        norm.train()
    model(*models.example_inputs(name, batch=CALIBRATION))


def even(model: nn.Module, name: str) -> None:
    """Scale the layers of a network without norms so that what each of them gives has a variance of one."""

    def scale(layer: nn.Module, _: object, out: Tensor) -> Tensor:
        size = float(out.std())
        for value in layer.parameters(recurse=False):
            value /= size
        return out / size

    held = [m.register_forward_hook(scale) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model.eval()(*models.example_inputs(name, batch=CALIBRATION))
    for hook in held:
        hook.remove()


def sparsity_of(model: nn.Module) -> float:
    """Share of zeros among the weights of convolutions, linear and recurrent layers."""
    found = [
        w for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.GRU | nn.LSTM) for w in m.parameters()
    ]
    matrices = [w for w in found if w.dim() > 1]
    return 1 - sum(int(w.count_nonzero()) for w in matrices) / max(1, sum(w.numel() for w in matrices))
