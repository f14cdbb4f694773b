"""Where block-circulant weights pay: a sample through a square linear layer, or an image through a convolution, beside
dense and 4x1 blocks of as many weights.

python benchmarks/circulant.py [--sizes 1024,512] [--convolutions 256x14,64x56] [--rounds 15]
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from _step import StepClock
from torch import nn

import openwork
from openwork.compiler.circulant import BLOCKS
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.circulant import Circulant
from openwork.engine.timing import measure, ratio_interval


class Side(StepClock):
    """The tuned step of a layer, alone."""

    def __init__(self, name: str, size: int, constraint: Constraint | None) -> None:
        torch.manual_seed(0)
        layer = nn.Linear(size, size).eval()
        if constraint is not None:
            layer.weight.data = constraint.project(layer.weight.data)
        engine = openwork.compile(layer, torch.randn(1, size), threads=1)
        at, row = next((at, row) for at, row in enumerate(engine.explain(repeats=1).rows) if row["op"] == "linear")
        super().__init__(engine._native, engine._spec, at)
        self.name, self.kernel = name, row["kernel"]


class Image:
    """A whole network of one 3x3 convolution: a circulant one may be three."""

    def __init__(self, name: str, channels: int, side: int, constraint: Constraint | None) -> None:
        torch.manual_seed(0)
        layer = nn.Conv2d(channels, channels, 3, padding=1).eval()
        if constraint is not None:
            layer.weight.data = constraint.project(layer.weight.data)
        self.name = name
        self.image = torch.randn(1, channels, side, side)
        self.engine = openwork.compile(layer, self.image, threads=1)
        self.kernel = ", ".join(row["kernel"] for row in self.engine.explain(repeats=1).rows if row["op"] == "conv")

    def __call__(self) -> None:
        self.engine(self.image)


def rivals(outputs: int) -> Iterator[tuple[str, Constraint | None]]:
    """Dense, and for each block the circulant weight and the one of 4x1 blocks that has as many numbers."""
    yield "dense", None
    for block in reversed(BLOCKS):
        if block < outputs:
            yield f"circulant {block}", Circulant(block=block)
            yield f"4x1, {block} times fewer", Block(shape=(4, 1), sparsity=1 - 1 / block)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1024,512", help="sides of linear layers; nothing for none")
    parser.add_argument("--convolutions", default="256x14,64x56", help="channels x side of the image; nothing for none")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for size in map(int, filter(None, options.sizes.split(","))):
        show(f"{size} x {size}, one sample", [Side(n, size, c) for n, c in rivals(size)], options.rounds)
    for text in filter(None, options.convolutions.split(",")):
        channels, side = map(int, text.split("x"))
        found = [Image(n, channels, side, c) for n, c in rivals(channels)]
        show(f"3x3 convolution, {channels} channels, {side} x {side} pixels", found, options.rounds)


def show(title: str, sides: Sequence[Side | Image], rounds: int) -> None:
    """Time all sides in turn and print a line for each; the first is dense."""
    seconds = measure(sides, rounds, 1)
    print(f"{title}, one thread: times faster than dense, with a 95 % interval")
    for side, own in zip(sides, seconds, strict=True):
        ratio, low, high = ratio_interval(seconds[0], own)
        times = f"{1e6 * np.median(own):8.2f} us  {ratio:6.2f} ({low:.2f} to {high:.2f})"
        print(f"  {side.name:22} {times}  {side.kernel}")


if __name__ == "__main__":
    main()
