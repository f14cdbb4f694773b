"""LiteRT (TensorFlow Lite) on the CPU with XNNPACK, converted by Google's litert-torch.

Source: ai.google.dev/edge/litert, 'Convert PyTorch models' and 'CPU acceleration with XNNPACK' (on by default for
floats). The converter pins versions that Openwork's other libraries have left behind, hence an environment of its own;
it needs the torch that the network was exported with.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ._process import ProcessPeer
from .base import Arrays, Run, without_int64

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class LiteRT(ProcessPeer):
    """LiteRT's interpreter, whose default delegate for floats is XNNPACK."""

    packages = ("ai-edge-litert", "litert-torch")
    environment = "litert"

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        import torch

        torch.export.save(torch.export.export(model, example_inputs), folder / "model.pt2")

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        import litert_torch
        import torch
        from ai_edge_litert.interpreter import Interpreter

        program = torch.export.load(folder / "model.pt2")
        examples = tuple(torch.from_numpy(value) for value in inputs)
        litert_torch.convert(program.module(), examples).export(str(folder / "model.tflite"))
        interpreter = Interpreter(str(folder / "model.tflite"), num_threads=threads)
        interpreter.allocate_tensors()
        described = sorted(interpreter.get_input_details(), key=_place)
        for one, value in zip(described, without_int64(inputs), strict=True):
            interpreter.set_tensor(one["index"], value)
        places = [one["index"] for one in interpreter.get_output_details()]

        def run() -> tuple[np.ndarray, ...]:
            interpreter.invoke()
            return tuple(interpreter.get_tensor(place) for place in places)

        return run


def _place(described: dict[str, Any]) -> int:
    """Which argument of the call an input is: they are named serving_default_args_0, ..., but listed in any order."""
    return int(re.findall(r"args_(\d+)", described["name"])[-1])
