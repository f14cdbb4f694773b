"""`torch.compile` with its default backend, Inductor, which generates C++ for the CPU."""

import shutil
import warnings
from typing import TYPE_CHECKING, final

import numpy as np

from .base import Availability, Peer, Run, arrays

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class TorchCompile(Peer):
    """Inductor. Compiling happens in `prepare`, at the first call."""

    packages = ("torch",)

    def available(self) -> Availability:
        found = super().available()
        if found and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            return Availability(False, "torch_compile needs a C++ compiler: sudo apt install g++")
        return found

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        import torch

        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            compiled = torch.compile(model, dynamic=False)
            compiled(*example_inputs)

        def run() -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                return arrays(compiled(*example_inputs))

        return run
