"""DeepSparse on the CPU: the engine that runs unstructured sparsity, ended in 2025.

Source: DeepSparse 1.8's user guide, 'Benchmarking' (the engine with the default scheduler is the one for latency;
threads are `num_cores`). It needs numpy < 2, hence an environment of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from ._onnx import to_old_onnx
from ._process import ProcessPeer
from .base import Arrays, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class DeepSparse(ProcessPeer):
    """DeepSparse's engine on an ONNX file; it finds the zeros of the weights by itself."""

    packages = ("deepsparse",)
    environment = "deepsparse"

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        to_old_onnx(model, example_inputs, folder / "model.onnx")

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        import deepsparse

        engine = deepsparse.compile_model(str(folder / "model.onnx"), batch_size=len(inputs[0]), num_cores=threads)
        values = list(inputs)

        def run() -> tuple[np.ndarray, ...]:
            return tuple(engine.run(values, False))

        return run
