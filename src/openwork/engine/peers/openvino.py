"""OpenVINO on the CPU in fp32, set up for the latency of one request."""

from typing import TYPE_CHECKING, final

from . import _openvino
from .base import Peer, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class OpenVINO(Peer):
    """OpenVINO, latency hint. Without the precision hint it would compute in bf16 where the CPU can."""

    packages = ("openvino",)

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        network = _openvino.converted(model, example_inputs)
        inputs = tuple(value.numpy() for value in example_inputs)
        return _openvino.request(network, inputs, threads, INFERENCE_PRECISION_HINT="f32")
