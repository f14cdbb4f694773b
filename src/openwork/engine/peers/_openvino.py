"""What the OpenVINO peers share: conversion, and a request with the hints that its guide gives for latency.

Source: docs.openvino.ai, 'High-level Performance Hints', 'Performance Hints and Thread Scheduling'.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import Arrays, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


def converted(model: "nn.Module", example_inputs: "tuple[Tensor, ...]") -> Any:
    """`model` as an OpenVINO model, through `torch.export`."""
    import openvino as ov
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return ov.convert_model(torch.export.export(model.eval(), example_inputs))


def request(network: Any, inputs: Arrays, threads: int, **hints: str) -> Run:
    """One inference of a converted model on `inputs`; `hints` are properties of the compiled model."""
    import openvino as ov

    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads would stay on cores that the other engines are using in their turn.
        "ENABLE_CPU_PINNING": False,
        **hints,
    }
    once = ov.Core().compile_model(network, "CPU", properties).create_infer_request()
    for index, value in enumerate(inputs):
        once.set_input_tensor(index, ov.Tensor(value, shared_memory=True))
    outputs = len(network.outputs)

    def run() -> tuple[np.ndarray, ...]:
        once.infer()
        return tuple(once.get_output_tensor(i).data.copy() for i in range(outputs))

    return run


def capabilities() -> list[str]:
    """What OpenVINO can do well on this CPU: 'FP32', 'INT8', 'BF16', ..."""
    import openvino as ov

    found: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found
