"""MNN on the CPU, converted from ONNX by its own converter.

Source: MNN's documentation, 'Convert' and 'Python API' (precision 'high' is fp32; 'high' power and memory mean speed).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ._onnx import to_onnx
from ._process import ProcessPeer
from .base import Arrays, Run, without_int64

if TYPE_CHECKING:
    from torch import Tensor, nn

SPEED = {"backend": "CPU", "precision": "high", "memory": "high", "power": "high"}


@final
class MNN(ProcessPeer):
    """MNN, a session with fixed shapes, which lets it pick and prepare kernels once."""

    packages = ("MNN", "onnx", "onnxscript")
    tolerance = 0.01  # at full precision its Winograd kernels are off by 0.003 of the largest output on ResNet-50

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        (folder / "model.onnx").write_bytes(to_onnx(model, example_inputs))

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        # `_tools` is what the command `mnnconvert` calls. The command also sends statistics to its makers, and installs
        # with pip what it needs to do so.
        import _tools
        import MNN as mnn
        import onnx

        source, target = folder / "model.onnx", folder / "model.mnn"
        arguments = ["--framework", "ONNX", "--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "bench"]
        _tools.mnnconvert(["mnnconvert", *arguments])
        if not target.is_file():
            raise RuntimeError(f"its converter wrote no model{_reason(folder / 'log')}")
        graph = onnx.load(source, load_external_data=False).graph
        interpreter = mnn.Interpreter(str(target))
        session = interpreter.createSession({**SPEED, "numThread": threads})
        places = [interpreter.getSessionInput(session, described.name) for described in graph.input]
        values = [_tensor(mnn, value) for value in without_int64(inputs)]

        def run() -> tuple[np.ndarray, ...]:
            # Every time: a session uses the memory of its inputs for later layers.
            for place, value in zip(places, values, strict=True):
                place.copyFrom(value)
            interpreter.runSession(session)
            return tuple(_get(mnn, interpreter.getSessionOutput(session, o.name)) for o in graph.output)

        return run


def _reason(log: Path) -> str:
    """What the converter had against the network, as far as it says so."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    found = [line.partition("Not Support:")[2].strip() for line in lines if "Not Support:" in line]
    return f": it does not know {', '.join(found)}" if found else ""


def _tensor(mnn: Any, value: np.ndarray) -> Any:
    kind = mnn.Halide_Type_Int if value.dtype == np.int32 else mnn.Halide_Type_Float
    return mnn.Tensor(value.shape, kind, np.ascontiguousarray(value), mnn.Tensor_DimensionType_Caffe)


def _get(mnn: Any, tensor: Any) -> np.ndarray:
    """A copy in the order of ONNX: inside, MNN keeps channels in groups."""
    shape = tensor.getShape()
    host = mnn.Tensor(shape, mnn.Halide_Type_Float, np.empty(shape, np.float32), mnn.Tensor_DimensionType_Caffe)
    tensor.copyToHostTensor(host)
    return np.array(host.getNumpyData(), dtype=np.float32).reshape(shape)
