"""OpenVINO in int8 as on CPUs that have dot products of bytes (VNNI) but no tiles (AMX): most desktops', and AMD's.

Source: oneDNN's developer guide, 'CPU Dispatcher Control', whose variable OpenVINO's CPU plugin obeys, too.
"""

from typing import ClassVar, final

from .openvino_int8 import OpenVINOInt8


@final
class OpenVINOInt8Vnni(OpenVINOInt8):
    """`openvino_int8` without AMX; on a CPU that has none, the same."""

    variables: ClassVar[dict[str, str]] = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
