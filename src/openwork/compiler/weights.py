"""Whether weights are still what they were when an engine was made from them.

PyTorch counts writes into a tensor, but not those of batch norm into its statistics, through `.data` or through NumPy.
So small tensors are compared byte by byte, and of large ones three stretches: what trains writes everywhere.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WHOLE = 1 << 14
"""Bytes up to which a tensor is compared as a whole."""
STRETCH = 64
"""Bytes of each of the three stretches that stand for a larger one."""


class Watch:
    """Weights at one moment."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weakref.ref(w) for w in weights]
        self.places = [w.data_ptr() for w in weights]
        self.writes = [_writes(w) for w in weights]
        self.parts = [part for w in weights for part in _parts(w)]
        self.bytes = b"".join(self.parts)

    def alive(self) -> bool:
        """Whether all of them still exist."""
        return all(ref() is not None for ref in self.weights)

    def unchanged(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the same, and hold what they held."""
        return (
            all(ref() is w for ref, w in zip(self.weights, weights, strict=True))
            and self.places == [w.data_ptr() for w in weights]
            and self.writes == [_writes(w) for w in weights]
            and self.bytes == b"".join(self.parts)
        )


def _writes(weight: Tensor) -> int:
    """How often PyTorch has written into a tensor, as far as it counts."""
    return 0 if weight.is_inference() else weight._version


def _parts(weight: Tensor) -> list[Any]:
    """Arrays of bytes that share the weight's memory."""
    size = weight.element_size()
    begin = weight.storage_offset() * size
    reach = 1 + sum((d - 1) * s for d, s in zip(weight.shape, weight.stride(), strict=True))
    storage = weight.detach().untyped_storage()
    content = torch.empty(0, dtype=torch.uint8).set_(storage)[begin : begin + reach * size].numpy()
    if len(content) <= WHOLE:
        return [content]
    middle = len(content) // 2
    return [content[:STRETCH], content[middle : middle + STRETCH], content[-STRETCH:]]
