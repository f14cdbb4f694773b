"""OpenVINO on the CPU with the hints that its guide gives for latency, in fp32.

Source: docs.openvino.ai, 'High-level Performance Hints', 'Performance Hints and Thread Scheduling'.
"""

import warnings
from typing import TYPE_CHECKING, final

import numpy as np

from .base import Peer, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class OpenVINO(Peer):
    """OpenVINO, latency hint. Without the precision hint it would compute in bf16 where the CPU can."""

    packages = ("openvino",)

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        import openvino as ov
        import torch

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            converted = ov.convert_model(torch.export.export(model.eval(), example_inputs))
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            # Pinned threads would stay on cores that the other engines are using in their turn.
            "ENABLE_CPU_PINNING": False,
        }
        request = ov.Core().compile_model(converted, "CPU", properties).create_infer_request()
        for index, value in enumerate(example_inputs):
            request.set_input_tensor(index, ov.Tensor(value.numpy(), shared_memory=True))
        outputs = len(converted.outputs)

        def run() -> tuple[np.ndarray, ...]:
            request.infer()
            return tuple(request.get_output_tensor(i).data.copy() for i in range(outputs))

        return run
