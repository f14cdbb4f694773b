"""OpenVINO on the CPU in int8: NNCF's post-training quantization, as OpenVINO's guide advises.

Source: docs.openvino.ai, 'Basic Quantization Flow' (typical samples, the mixed preset, a model type for transformers).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from . import _openvino
from ._process import ProcessPeer, save
from .base import INT8_TOLERANCE, Arrays, Run

if TYPE_CHECKING:
    from torch import Tensor, nn

RANDOM_SAMPLES = 32
"""Normal random inputs to calibrate on where the caller gives none: enough for ranges, no help to accuracy."""


class OpenVINOInt8(ProcessPeer):
    """OpenVINO, latency hint, convolutions and matrix products in int8; the rest as OpenVINO sees fit, or fp32."""

    packages = ("openvino", "nncf")
    precision = "int8"
    tolerance = INT8_TOLERANCE
    hints: ClassVar[Mapping[str, str]] = {}
    """Properties of the compiled model besides those of every OpenVINO peer."""

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        import openvino as ov

        ov.save_model(_openvino.converted(model, example_inputs), folder / "model.xml", compress_to_fp16=False)
        samples = self.calibration or _random(tuple(value.numpy() for value in example_inputs))
        for index, sample in enumerate(samples):
            (folder / f"sample{index}").mkdir()
            save(folder / f"sample{index}", "input", sample)

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        import nncf
        import openvino as ov

        network = ov.Core().read_model(folder / "model.xml")
        samples = [[np.load(s / f"input{i}.npy") for i in range(len(inputs))] for s in folder.glob("sample*")]
        attention = any(op.get_type_name() in ("ScaledDotProductAttention", "Softmax") for op in network.get_ops()[:-8])
        quantized = nncf.quantize(
            network,
            nncf.Dataset(samples, lambda sample: sample),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            subset_size=len(samples),
        )
        try:
            return _openvino.request(quantized, inputs, threads, **self.hints)
        except RuntimeError:
            # On CPUs that have bf16 the rest is in bf16, and OpenVINO 2026.4 then has no implementation
            # for some networks; in fp32, as on other CPUs, it has.
            return _openvino.request(quantized, inputs, threads, INFERENCE_PRECISION_HINT="f32")


def _random(like: Arrays) -> list[Arrays]:
    """Random floats of the inputs' shapes; integers, which may be indices or masks, stay as they are."""
    generator = np.random.default_rng(0)
    return [
        tuple(generator.standard_normal(x.shape, dtype=np.float32) if x.dtype == np.float32 else x for x in like)
        for _ in range(RANDOM_SAMPLES)
    ]
