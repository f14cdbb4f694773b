"""ncnn on the CPU, converted by pnnx from TorchScript.

Source: ncnn's documentation, 'use ncnn with pytorch or onnx' (pnnx is the advised way) and 'faq' (threads; Winograd,
packing and the like are on by default).
"""

import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ...errors import PeerError
from ._process import ProcessPeer
from .base import Arrays, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class Ncnn(ProcessPeer):
    """ncnn in fp32: storage and arithmetic in fp16, which it would take where the CPU has it, are off."""

    packages = ("ncnn", "pnnx")

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        import pnnx
        import torch

        if any(not x.is_floating_point() for x in example_inputs):
            # Its arithmetic reads a mask's ones as the smallest of floats.
            raise PeerError("ncnn computes with floats only, and the network takes whole numbers")
        if any(len(x) != 1 for x in example_inputs):
            raise PeerError(f"ncnn has no batch axis, and the batch is {len(example_inputs[0])}")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            trace: Any = torch.jit.trace
            traced = trace(model, example_inputs, check_trace=False, strict=False)
        traced.save(str(folder / "model.pt"))
        shapes = ",".join(f"[{','.join(map(str, x.shape))}]f32" for x in example_inputs)
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape={shapes}", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not (folder / "model.ncnn.bin").is_file():
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no word"]
            raise PeerError(f"pnnx ended with code {done.returncode}: {last[0][:200]}")

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(net.opt, option, False)
        if net.load_param(str(folder / "model.ncnn.param")) or net.load_model(str(folder / "model.ncnn.bin")):
            unknown = _unknown_layers(folder / "model.ncnn.param")
            raise RuntimeError(f"no such layer as {', '.join(unknown)}" if unknown else "its loader refuses the model")
        mats = [ncnn.Mat(np.ascontiguousarray(value[0])) for value in inputs]  # pnnx takes the batch axis off

        def run() -> tuple[np.ndarray, ...]:
            extractor = net.create_extractor()
            for name, mat in zip(net.input_names(), mats, strict=True):
                extractor.input(name, mat)
            return tuple(np.array(extractor.extract(name)[1])[None] for name in net.output_names())

        return run


def _unknown_layers(param: Path) -> list[str]:
    """Layers that are torch operators by name: what pnnx found no form of ncnn for."""
    kinds = {line.split()[0] for line in param.read_text().splitlines()[2:] if line.split()}
    return sorted(kind for kind in kinds if "." in kind or "::" in kind)
