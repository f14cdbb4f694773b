"""OpenVINO on the CPU in bf16, which is what it does by itself on CPUs that have bf16 dot products."""

from typing import TYPE_CHECKING, final

from . import _openvino
from .base import Availability, Peer, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class OpenVINOBf16(Peer):
    """OpenVINO, latency hint, weights and activations in bf16; softmax and the like stay in fp32."""

    packages = ("openvino",)
    precision = "bf16"
    # 8 bits of mantissa: 0.4 % in one rounding, and a network has dozens of layers.
    tolerance = 0.05

    def available(self) -> Availability:
        found = super().available()
        if found and "BF16" not in _openvino.capabilities():
            return Availability(False, f"{self.name} needs a CPU with bf16 dot products (AVX-512 BF16 or AMX)")
        return found

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        network = _openvino.converted(model, example_inputs)
        inputs = tuple(value.numpy() for value in example_inputs)
        return _openvino.request(network, inputs, threads, INFERENCE_PRECISION_HINT="bf16")
