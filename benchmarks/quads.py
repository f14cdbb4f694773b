"""Convolutions on 8-bit values beside the fastest float32 kernels for the same layer, dense and in blocks, one core.

python benchmarks/quads.py [--layers 64x64x3x56,512x2048x1x7] [--rounds 15] [--isa avx512]
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from _step import StepClock
from torch import nn

from openwork.compiler.candidates import kernels
from openwork.compiler.capture import capture
from openwork.compiler.drafts import TILE, Lowered
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize
from openwork.compiler.pack import layer_step, pack
from openwork.engine import _native
from openwork.engine.native import build
from openwork.engine.timing import measure, ratio_interval
from openwork.formats.program import Step

LAYERS = "64x64x3x56,128x128x3x28,256x256x3x14,512x512x3x7,64x256x1x56,512x128x1x28,1024x256x1x14,512x2048x1x7"
PATTERNS = {"dense": (8, 0.0), "8x4 90 %": (8, 0.9), "4x4 90 %": (4, 0.9)}
"""Rows of a block of rows x 4 input channels, and the share of blocks that are zero."""


class Side(StepClock):
    """A step of a lowered layer, alone."""

    def __init__(self, lowered: Lowered, at: int, step: Step, isa: str) -> None:
        spec = replace(lowered.program, steps=(*lowered.program.steps[:at], step, *lowered.program.steps[at + 1 :]))
        super().__init__(build(spec, 1, isa), spec, at)
        self.kernel = self.program.kernel_name(at)


def layer(inputs: int, outputs: int, kernel: int, rows: int, sparsity: float) -> nn.Conv2d:
    """A convolution, pruned at random in blocks of `rows` outputs x 4 inputs."""
    torch.manual_seed(0)
    found = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2).eval()
    keep = torch.rand(outputs // rows, inputs // 4, kernel, kernel) >= sparsity
    with torch.no_grad():
        found.weight *= keep.repeat_interleave(rows, 0).repeat_interleave(4, 1)
    return found


def quad_steps(model: nn.Conv2d, base: Step, isa: str) -> Iterator[Step]:
    """The layer on 8-bit values in every block and tile: planes of quads lie where the first planes of floats did."""
    weight = np.round(model.weight.detach().numpy() * 127 / model.weight.abs().max().item())
    outputs, inputs, *kernel = weight.shape
    split = np.moveaxis(weight.reshape(outputs, inputs // 4, 4, *kernel), 2, -1).reshape(outputs, -1, 4)
    words = np.ascontiguousarray(split.astype(np.int8)).view(np.int32)[..., 0]
    dense = bool(words.all())
    planes = [
        np.concatenate([first + np.arange(n) * step for first, step, n in part]) for part in base.fields["planes"]
    ]
    for mb in (1, 2, 4, 8, *([TILE] if _native.multiplies_matrices(isa) else [])):
        packed = pack(words, np.zeros(outputs, np.float32), mb, dense=dense)
        packed = packed.tiled() if mb == TILE else packed
        fields = {
            **{name: base.fields[name] for name in ("shifts", "grid")},
            "planes": [[[int(p), 0, 1] for p in part[: inputs // 4]] for part in planes],
            "out": [[int(p), 0, 1] for p in base.fields["out"][: outputs // 4]],
            **{"mb": mb, "row_chunks": 1, "tile_chunks": 1, "signed": False, "quads_out": True, "lo": 0, "hi": 255},
        }
        arrays = {
            "value": packed.value.view(np.int8),
            "scale": np.full(outputs, 1e-3, np.float32),
            "bias": np.zeros(outputs, np.float32),
        }
        if dense:
            fields |= {"dense": True, "columns": words.shape[1]}
        else:
            arrays |= {"start": packed.start, "index": packed.index}
        widest = _native.widest_quad_tile(isa, mb)
        for vectors in range(max(1, widest - 2 if mb < TILE else 1), widest + 1):
            yield Step("quad_taps", base.name, fields | {"vectors": vectors}, arrays)


def sides(model: nn.Conv2d, size: int, isa: str) -> tuple[Side, Side]:
    """The fastest step on floats and the fastest on quads."""
    lowered = lower(optimize(capture(model, (torch.randn(1, model.in_channels, size, size),))))
    at = next(at for at, draft in enumerate(lowered.drafts) if draft.weights)
    base, weights = lowered.program.steps[at], lowered.drafts[at].weights
    assert weights is not None
    floats = [layer_step(base, weights, choice) for choice in kernels(lowered.drafts[at], base, 1, isa)]
    both = [[Side(lowered, at, step, isa) for step in some] for some in (floats, quad_steps(model, base, isa))]
    best_float, best_quad = (min(some, key=lambda side: side.block(3)) for some in both)
    return best_float, best_quad


def main() -> None:
    """Print a line for each layer and pattern."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default=LAYERS, help="inputs x outputs x kernel x size, separated by commas")
    parser.add_argument("--patterns", default=",".join(PATTERNS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", default=_native.isas()[0])
    options = parser.parse_args()
    print("operations: two for each weight that is not zero and pixel; ratio: time of floats over quads, 95 % interval")
    for name in options.layers.split(","):
        inputs, outputs, kernel, size = map(int, name.split("x"))
        for pattern in options.patterns.split(","):
            model = layer(inputs, outputs, kernel, *PATTERNS[pattern])
            pair = sides(model, size, options.isa)
            floats, quads = measure(pair, options.rounds, 1)
            ratio, low, high = ratio_interval(floats, quads)
            gops = [
                2e-9 * np.count_nonzero(model.weight.detach()) * size * size / np.median(s) for s in (floats, quads)
            ]
            line = [
                f"{side.kernel:26} {1e6 * np.median(s):8.1f} us {g:6.0f} GOP/s"
                for side, s, g in zip(pair, (floats, quads), gops, strict=True)
            ]
            print(f"{name:16} {pattern:9} {line[0]}  {line[1]}  {ratio:5.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
