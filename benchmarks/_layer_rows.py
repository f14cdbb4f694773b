"""Targets that compare the engine with itself or with the machine: a recurrent step, unstructured layers, kernels."""

import statistics
from collections.abc import Iterator
from typing import Any

import torch
from _roofline import bandwidth_for, peaks
from _suite import goal, milliseconds
from _workloads import network, pruned
from layers import LAYERS, PATTERNS, masked
from layers import measure as kernel_alone
from torch import nn

import openwork
from openwork import models

SPARSITY = 0.9
ROUNDS = 5
"""Turns of dense and sparse, of which the medians count."""

# Where trained 3x3 and 1x1 weights can be had: layers by name, of models with published weights.
TRAINED = {
    "cifar10_resnet56": ("layer2.8.conv2", "layer3.8.conv2"),
    "efficientnet_lite0": ("blocks.7.project_conv", "blocks.13.expand_conv", "blocks.13.project_conv"),
}


def gru(rate: float, at_least: float, threads: int) -> dict[str, Any]:
    """A step of the GRU against the time that its packed weights take to be loaded, from where they fit."""
    model = network("gru_timit", "8x1", 1 - 1 / rate)
    engine = openwork.compile(model, models.example_inputs("gru_timit"), threads=threads, tune="thorough", name="gru")
    result = openwork.bench(engine, (), threads=threads)
    left = [row["name"] for row in engine.explain(3).rows if row["op"] == "torch"]
    stored = sum(a.nbytes for step in engine.artifact.program.steps for a in step.arrays.values())
    needed = 4 * sum(int(w.count_nonzero()) for w in model.parameters() if w.dim() > 1)
    size = max(stored, needed)  # of what is left to PyTorch the program stores nothing
    found = peaks(engine.isa, threads)
    limit = 1e6 * size / bandwidth_for(size, found)
    side = result.sides[0]
    share = limit / side.median_us
    said = f"{size / 2**20:.2f} MiB of weights and indices, {milliseconds(limit)} at {size / limit / 1e3:.0f} GB/s"
    return {
        "result": result.to_dict(),
        "goals": [goal(f">= {at_least:.0%} of the bytes-bound limit", at_least, share, "%")],
        "peaks": found,
        "why": f"{said}; measured {milliseconds(side.median_us)}",
        "left_out": [f"left to PyTorch in {len(left)} steps: {', '.join(left[:3])}"] if left else [],
    }


def unstructured(trained: bool, at_least: float, threads: int) -> dict[str, Any]:
    """How much faster layers become when 90 % of their weights are zero without any pattern."""
    rows = []
    for name, layer, size in trained_layers() if trained else random_layers():
        sparse = _copy(layer)
        with torch.no_grad():
            if trained:
                sparse.weight.copy_(pruned(layer.weight, "unstructured", SPARSITY))
            else:
                masked(sparse, 1, 1 - SPARSITY)
        x = torch.randn(1, layer.in_channels, size, size)
        engines = [openwork.compile(m, x, threads=threads, tune="thorough") for m in (layer, sparse)]
        times = [[_microseconds(engine) for engine in engines] for _ in range(ROUNDS)]
        dense_us, sparse_us = (statistics.median(column) for column in zip(*times, strict=True))
        kernels = [next(r["kernel"] for r in e.explain(1).rows if r["op"] == "conv") for e in engines]
        ratios = [a / b for a, b in times]
        spread = {"low": min(ratios), "high": max(ratios)}
        rows.append({"layer": name, "dense_us": dense_us, "sparse_us": sparse_us, "ratio": dense_us / sparse_us})
        rows[-1] |= {**spread, "kernels": kernels}
    mean = statistics.geometric_mean([row["ratio"] for row in rows])
    low, high = (statistics.geometric_mean([row[key] for row in rows]) for key in ("low", "high"))
    return {
        "layers": rows,
        "goals": [goal(f">= {at_least:g}x dense in the same engine", at_least, mean, "x", (low, high))],
    }


def random_layers() -> Iterator[tuple[str, nn.Conv2d, int]]:
    """ResNet-50's layers with random weights: name, layer, image size."""
    for cin, cout, kernel, size in LAYERS:
        torch.manual_seed(0)
        yield (
            f"{cin}->{cout} {kernel}x{kernel} {size}x{size}",
            nn.Conv2d(cin, cout, kernel, padding=kernel // 2).eval(),
            size,
        )


def trained_layers() -> Iterator[tuple[str, nn.Conv2d, int]]:
    """Layers of models with published weights, and the size of the images that they see."""
    for model, names in TRAINED.items():
        net = models.resolve(model, weights=models.PRETRAINED)
        sizes: dict[str, int] = {}
        for name in names:
            net.get_submodule(name).register_forward_hook(
                lambda _module, inputs, _output, name=name, sizes=sizes: sizes.update({name: inputs[0].shape[-1]})
            )
        with torch.no_grad():
            net(*models.example_inputs(model))
        for name in names:
            layer = net.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            yield f"{model} {name}", _copy(layer), sizes[name]


def efficiency(pattern: str, at_least: float) -> dict[str, Any]:
    """Share of the measured multiply-add peak that kernels reach on ResNet-50's layers, useful operations only.

    Where Winograd's kernels won, these are the products that they do; `of_definition` counts those that a convolution
    is defined by, and may pass the peak.
    """
    rows = []
    for cin, cout, kernel, size in LAYERS:
        torch.manual_seed(0)
        layer = masked(nn.Conv2d(cin, cout, kernel, padding=kernel // 2).eval(), *PATTERNS[pattern])
        found = kernel_alone(layer, size, threads=1)
        defined = 1e3 * found["gflops"] * found["microseconds"] / 2
        found["of_definition"] = found["share_of_peak"] * defined / found["multiply_adds"]
        rows.append({"layer": f"{cin}->{cout} {kernel}x{kernel} {size}x{size}", **found})
    shares = ("share_of_peak", "of_definition")
    mean, defined = (statistics.geometric_mean([row[key] for row in rows]) for key in shares)
    return {
        "layers": rows,
        "goals": [goal(f">= {at_least:.0%} of the multiply-add peak", at_least, mean, "%")],
        "why": f"counting the products that a convolution is defined by, as Winograd's kernels do fewer: {defined:.0%}",
    }


def _copy(layer: nn.Conv2d) -> nn.Conv2d:
    own = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.kernel_size[0] // 2)
    own.weight.data.copy_(layer.weight.data)
    return own.eval()


def _microseconds(engine: openwork.Engine) -> float:
    """The convolution's kernel alone."""
    return float(next(row["microseconds"] for row in engine.explain(50).rows if row["op"] == "conv"))
