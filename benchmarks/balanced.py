"""Where slots of a window pay: a sample through a linear layer of each pattern, packed in panels and in slots.

python benchmarks/balanced.py [--shapes 1024x1024,4096x1024] [--rounds 15] [--batch 1] [--isa avx2]
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from _step import StepClock
from torch import nn

import openwork
from openwork.compiler.candidates import Choice, kernels
from openwork.compiler.capture import capture
from openwork.compiler.drafts import Lowered
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize
from openwork.compiler.pack import layer_step
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.darb import DARB
from openwork.constraints.gather_scatter import GatherScatter
from openwork.constraints.nm import NM
from openwork.constraints.unstructured import Unstructured
from openwork.engine import _native
from openwork.engine.native import build
from openwork.engine.timing import measure, ratio_interval

PATTERNS: dict[str, Constraint | None] = {
    "dense": None,
    "2:4": NM(n=2, m=4),
    "1:4": NM(n=1, m=4),
    "GS(8,8) 90 %": GatherScatter(banks=8, per_row=8, sparsity=0.9),
    "GS(16,1) 90 %": GatherScatter(banks=16, per_row=1, sparsity=0.9),
    "DARB 90 %": DARB(sparsity=0.9),
    "unstructured 90 %": Unstructured(sparsity=0.9),
    "4x1 90 %": Block(shape=(4, 1), sparsity=0.9),
}


class Side(StepClock):
    """A packing of a layer: its step alone."""

    def __init__(self, lowered: Lowered, at: int, choice: Choice, isa: str) -> None:
        weights = lowered.drafts[at].weights
        assert weights is not None
        steps = list(lowered.program.steps)
        steps[at] = layer_step(steps[at], weights, choice)
        spec = replace(lowered.program, steps=tuple(steps))
        super().__init__(build(spec, 1, isa), spec, at)
        self.kernel = self.program.kernel_name(at)
        self.bytes = sum(array.nbytes for array in steps[at].arrays.values())


def layer(pattern: Constraint | None, outputs: int, inputs: int) -> nn.Linear:
    """The layer, pruned."""
    torch.manual_seed(0)
    found = nn.Linear(inputs, outputs).eval()
    if pattern is not None:
        with torch.no_grad():
            found.weight.copy_(pattern.fitted([found.weight.detach()])[0].project(found.weight))
    return found


def sides(model: nn.Linear, batch: int, isa: str) -> tuple[Side, Side | None]:
    """The fastest packing in panels, and the fastest in slots if there is one."""
    lowered = lower(optimize(capture(model, (torch.randn(batch, model.in_features),))))
    at = next(at for at, draft in enumerate(lowered.drafts) if draft.weights)
    choices = kernels(lowered.drafts[at], lowered.program.steps[at], 1, isa)
    both = [[Side(lowered, at, c, isa) for c in choices if (c.op == "balanced") is kind] for kind in (False, True)]
    panels, slots = (min(some, key=lambda side: side.block(5), default=None) for some in both)
    assert panels is not None
    return panels, slots


def main() -> None:
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="1024x1024,4096x1024")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--isa", default=_native.isas()[0])
    options = parser.parse_args()
    for shape in options.shapes.split(","):
        outputs, inputs = map(int, shape.split("x"))
        models = {name: layer(pattern, outputs, inputs) for name, pattern in PATTERNS.items()}
        found = {name: sides(model, options.batch, options.isa) for name, model in models.items()}
        every = [side for pair in found.values() for side in pair if side]
        seconds = dict(zip(map(id, every), measure(every, options.rounds, 1), strict=True))
        print(f"{outputs} x {inputs}, {options.batch} samples, one thread: slots over panels, with a 95 % interval")
        for name, (panels, slots) in found.items():
            line = f"  {name:18} {1e6 * np.median(seconds[id(panels)]):8.2f} us {panels.bytes:8} B {panels.kernel:22}"
            if slots:
                ratio, low, high = ratio_interval(seconds[id(slots)], seconds[id(panels)])
                line += f" {1e6 * np.median(seconds[id(slots)]):8.2f} us {slots.bytes:8} B {slots.kernel:26}"
                line += f" {ratio:5.2f} ({low:.2f} to {high:.2f})"
                x = torch.randn(options.batch, inputs)
                engine = openwork.compile(models[name], x, threads=1, tune="thorough", isa=options.isa)
                taken = next(row["kernel"] for row in engine.explain(repeats=1).rows if row["op"] == "linear")
                line += f" tuner: {taken}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
