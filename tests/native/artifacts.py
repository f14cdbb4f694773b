"""Small artifacts for tests of the native library: models of every kind, and each kind of step by itself."""

import copy
import json
import sys
from pathlib import Path

import native_steps
import numpy as np
import torch
from torch import nn

import openwork
from openwork.formats import artifact
from openwork.formats.program import ProgramSpec, Segment, Step, TensorSpec

sys.path.append(str(Path(__file__).parents[1] / "compiler"))

from rounded import Round, named, whole
from small_models import Calls, compiled, lively


class TwoOutputs(nn.Module):
    """Every family of plane and row kernels, on images `[2, 2, 8, 8]`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 3, 3, 2, 1)
        self.head = nn.Linear(32, 7)

    def forward(self, x):
        y = self.first(x).relu()
        y = torch.cat([nn.functional.max_pool2d(y, 2), self.second(y)], 1)
        return self.head(nn.functional.avg_pool2d(y, 2).flatten(1)), y


class Words(nn.Module):
    """Token ids and a mask `[2, 6]` in, vectors `[2, 12]` out."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(50, 12), nn.LayerNorm(12)

    def forward(self, ids, mask):
        present = mask[:, :, None].float()
        return (self.norm(self.table(ids)) * present).sum(1) / present.sum(1).clamp(min=1e-9)


def nested() -> tuple[openwork.Engine, int]:
    """Three networks inside each other, on images `[1, 4, 8, 8]`; and how many they are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)).eval()
    levels = [model]
    for share in (0.5, 0.2):
        levels.append(copy.deepcopy(levels[-1]))
        with torch.no_grad():
            for layer in (levels[-1][0], levels[-1][3]):
                layer.weight.mul_(torch.rand_like(layer.weight) < share)
    x = torch.zeros(1, 4, 8, 8)
    return openwork.compile(model, x, levels=levels[1:], threads=1, tune="off"), len(levels)


def two_outputs() -> openwork.Engine:
    torch.manual_seed(0)
    return compiled(lively(TwoOutputs(), sparsity=0.5), (2, 2, 8, 8), threads=2)


def words() -> openwork.Engine:
    torch.manual_seed(0)
    ids = torch.randint(50, (2, 6))
    return openwork.compile(Words().eval(), (ids, torch.ones_like(ids)), threads=1, tune="off")


def wide() -> openwork.Engine:
    """Layers that are cut into many chunks, so that threads have something to share."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 24, 3, 2), nn.Flatten()]
    return compiled(lively(nn.Sequential(*layers, nn.Linear(24 * 49, 40)), 0.3), (1, 3, 18, 18), threads=4)


def pixels() -> openwork.Engine:
    """Images that grow: transposed convolution, pixel shuffle, upsampling; activations by themselves."""
    torch.manual_seed(0)
    grown = [nn.ConvTranspose2d(2, 3, 2, 2), nn.PReLU(3), nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2)]
    layers = [*grown, nn.SiLU(), nn.Upsample(scale_factor=2), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(1)]
    return compiled(lively(nn.Sequential(*layers), 0.4), (1, 2, 4, 5), threads=2)


def few_bits(largest: int = 3) -> openwork.Engine:
    """Layers of bytes whose weights are whole numbers up to `largest`, which files pack."""
    layers = [Round(), nn.Conv2d(5, 12, 3, padding=1), nn.ReLU(), Round(2.0**-2), nn.Conv2d(12, 7, 1), nn.Flatten()]
    model = whole(named(*layers, Round(2.0**-3, (-127, 127)), nn.Linear(7 * 42, 9)), largest, 0.3)
    return compiled(model, (1, 5, 6, 7), threads=2)


def sentences() -> openwork.Engine:
    """Attention on tokens, and vectors of length one."""

    def forward(own, ids, mask):
        x = own[0](ids)
        q, k, v = (part.view(2, 8, 2, 8).transpose(1, 2) for part in own[1](x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 8, 16)
        y, present = own[2](x + own[3](y)), mask[:, :, None].float()
        return nn.functional.normalize((y * present).sum(1) / present.sum(1).clamp(min=1e-9))

    torch.manual_seed(0)
    model = Calls(forward, nn.Embedding(30, 16), nn.Linear(16, 48), nn.LayerNorm(16), nn.Linear(16, 16))
    ids = torch.randint(30, (2, 8))
    return openwork.compile(model.eval(), (ids, torch.ones_like(ids)), threads=2, tune="off")


def stream() -> openwork.Engine:
    """Recurrent layers, one of them in both directions."""
    torch.manual_seed(0)
    layers = nn.GRU(6, 8, bidirectional=True, batch_first=True), nn.LSTM(16, 5, batch_first=True)
    return compiled(Calls(lambda own, x: own[1](own[0](x)[0])[0], *layers).eval(), (2, 4, 6), threads=2)


MODELS = (few_bits, two_outputs, words, wide, pixels, sentences, stream)


class _Recorder:
    """Stands in for a native program: keeps what a case would add to one."""

    def add(self, op, fields, arrays, at):
        self.step = Step(op, op, json.loads(fields), {k: np.ascontiguousarray(a) for k, a in arrays.items()})


def single_step(case: native_steps.Case) -> bytes:
    """An artifact of one step; its buffers outside the arena are inputs but for the last, which is the output."""
    recorder = _Recorder()
    case.add(recorder)
    sizes = [b.size for b in case.buffers]
    written = recorder.step.fields.get("y")
    if not (isinstance(written, dict) and written.get("buffer", -1) >= 0):
        sizes.append(1)  # a step that writes into the arena: the output stays as it is
    if len(sizes) == 1:
        sizes.append(1)
    numbers = [case.arguments.get(name) for name in ("ids", "flags")]  # buffers that hold whole numbers
    externals = tuple(
        TensorSpec(f"b{i}", (size,), "int32" if i in numbers else "float32") for i, size in enumerate(sizes)
    )
    output = written["buffer"] if isinstance(written, dict) and written.get("buffer", -1) >= 0 else len(sizes) - 1
    inputs = tuple(i for i in range(len(sizes)) if i != output)
    spec = ProgramSpec(len(case.arena), externals, inputs, (output,), (recorder.step,), (Segment(0, 1),))
    return artifact.to_bytes(artifact.Artifact(spec))


def write(folder: Path) -> list[Path]:
    """All of them as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in MODELS:
        make().save(folder / f"{make.__name__}.openwork")
    for name, case in native_steps.every_case().items():
        (folder / f"step-{name}.openwork").write_bytes(single_step(case))
    return sorted(folder.glob("*.openwork"))


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
