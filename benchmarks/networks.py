"""Whole zoo models at 90 % sparsity in 4x1 blocks, beside other engines on the same network and on the dense one.

    python benchmarks/networks.py [--models resnet50,vgg16] [--against onnxruntime,openvino] [--threads 2] [--json FILE]

Weights are random: latency depends on where the zeros are, not on what the others are. Accuracy is measured where
training is (`openwork compress`), not here.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

import openwork
from openwork import models, plugins
from openwork.constraints.block import Block
from openwork.engine.bench_result import BenchResult
from openwork.engine.peers.base import Peer

MODELS = ("lenet5", "cifar10_resnet20", "cifar10_vgg16", "mobilenetv2", "resnet18", "resnet50", "vgg16")
PEERS = ("pytorch", "onnxruntime", "openvino")
SPARSITY = 0.9


def prune(model: nn.Module) -> nn.Module:
    """Zero 4x1 blocks of every convolution and linear layer that they fit, but for the first and depthwise ones."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers[1:]:
            if layer.weight.shape[0] % 4 == 0 and getattr(layer, "groups", 1) == 1:
                layer.weight.copy_(Block(shape=(4, 1), sparsity=SPARSITY).project(layer.weight))
    return model


def measure(name: str, peers: Sequence[str], threads: int, repeats: int) -> BenchResult:
    """Compile a pruned zoo model, and time it beside the peers."""
    torch.manual_seed(0)
    dense = models.resolve(name, weights=None)
    pruned = prune(models.resolve(name, weights=None))
    engine = openwork.compile(pruned, models.example_inputs(name), threads=threads, name=name)
    return openwork.bench(engine, peers, dense, threads, repeats, compiled_from=pruned)


def markdown(result: BenchResult) -> Iterator[str]:
    """A result as the lines of a Markdown table."""
    yield "| engine | median | quartiles | Openwork is faster by |"
    yield "| --- | --- | --- | --- |"
    for side in result.sides:
        ratio = f"{side.ratio:.2f}x ({side.ratio_low:.2f}-{side.ratio_high:.2f})" if side.engine != "openwork" else ""
        quartiles = f"{side.low_us / 1000:.3f}-{side.high_us / 1000:.3f} ms"
        yield f"| {side.name} ({side.version}) | {side.median_us / 1000:.3f} ms | {quartiles} | {ratio} |"


def usable(name: str) -> bool:
    """Whether a peer can be measured; if not, say why."""
    found = plugins.find("engine.peers", name, Peer)().available()
    if not found:
        print(f"left out: {found.reason}\n")
    return found.ok


def names(text: str) -> tuple[str, ...]:
    """'a,b' as ('a', 'b')."""
    return tuple(part for part in text.split(",") if part)


def main() -> None:
    """Print a table a model as it is measured, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=names, default=MODELS)
    parser.add_argument("--against", type=names, default=PEERS, help="peers; those not installed are left out")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=30, help="rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = [name for name in options.against if usable(name)]
    measured = {}
    for name in options.models:
        result = measure(name, peers, options.threads, options.repeats)
        measured[name] = result.to_dict()
        settings = str(result).splitlines()[len(result.sides) + 1]
        print(f"{name}: {SPARSITY:.0%} sparse in 4x1 blocks; {settings}\n", *markdown(result), "", sep="\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
