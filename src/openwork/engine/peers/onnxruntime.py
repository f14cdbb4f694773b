"""ONNX Runtime on the CPU, set up as its tuning guide advises for the latency of one request.

Source: onnxruntime.ai/docs/performance/tune-performance (threading, graph optimizations, I/O binding).
"""

from typing import TYPE_CHECKING, final

import numpy as np

from ._onnx import to_onnx
from .base import Peer, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class OnnxRuntime(Peer):
    """ONNX Runtime: all graph optimizations, sequential execution, inputs and outputs bound once."""

    packages = ("onnxruntime", "onnx", "onnxscript")

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads spin between the operators of a request, which is what makes it fast; they must not go on
        # spinning while another engine is being measured.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        exported = to_onnx(model, example_inputs)
        session = ort.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for described, value in zip(session.get_inputs(), example_inputs, strict=True):
            binding.bind_ortvalue_input(described.name, ort.OrtValue.ortvalue_from_numpy(value.numpy()))
        for described in session.get_outputs():
            binding.bind_output(described.name)

        def run() -> tuple[np.ndarray, ...]:
            session.run_with_iobinding(binding)
            return tuple(binding.copy_outputs_to_cpu())

        return run
