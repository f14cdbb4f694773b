"""OpenVINO in int8 as on CPUs that have dot products of bytes (VNNI) but no tiles (AMX): most desktops', and AMD's.

Source: oneDNN's developer guide, 'CPU Dispatcher Control', whose variable OpenVINO's CPU plugin obeys, too.
"""

from collections.abc import Mapping
from typing import ClassVar, final

from .openvino_int8 import OpenVINOInt8


@final
class OpenVINOInt8Vnni(OpenVINOInt8):
    """`openvino_int8` without AMX; on a CPU that has none, much the same.

    What is not in int8 is in fp32, which without AMX was the faster choice wherever it made a difference (MiniLM: 4.9
    against 5.4 ms on the machine of docs/performance.md, and 14.8 ms where bf16 is taken away from the CPU, too).
    """

    variables: ClassVar[Mapping[str, str]] = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    hints: ClassVar[Mapping[str, str]] = {"INFERENCE_PRECISION_HINT": "f32"}
