"""PyTorch as people run it: the module itself, eagerly, in inference mode."""

from typing import TYPE_CHECKING, final

import numpy as np

from .base import Peer, Run, arrays

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class PyTorch(Peer):
    """Eager PyTorch. Its threads are a setting of the whole process, which `openwork.bench` makes and takes back."""

    packages = ("torch",)

    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        import torch

        def run() -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                return arrays(model(*example_inputs))

        return run
