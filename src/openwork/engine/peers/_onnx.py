"""Networks as ONNX, the way in that most engines share."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import PeerError

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET_FOR_OLD_ENGINES = 14
"""The newest that engines of 2024 know, and the oldest that has all that attention needs."""


def to_onnx(model: "nn.Module", example_inputs: "tuple[Tensor, ...]") -> bytes:
    """`model` as a serialised ONNX model, through `torch.export`."""
    import torch

    with _quiet():
        program = torch.onnx.export(model.eval(), example_inputs, dynamo=True, verbose=False)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def to_old_onnx(model: "nn.Module", example_inputs: "tuple[Tensor, ...]", path: Path) -> None:
    """`model` as an ONNX file of opset 14, through tracing: what `torch.export` leads to is too new for some engines.

    Raises `PeerError` where that opset cannot say what the model does.
    """
    import torch

    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                model.eval(), example_inputs, path, dynamo=False, opset_version=OPSET_FOR_OLD_ENGINES, verbose=False
            )
    except Exception as error:  # the exporter has many
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PeerError(f"the network has no form in ONNX opset {OPSET_FOR_OLD_ENGINES}: {reason[0][:200]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what is new and old in torch, and note that torchvision is not installed."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
