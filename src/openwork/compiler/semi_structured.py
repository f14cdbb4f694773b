"""2:4 weights on CUDA GPUs: linear layers whose sparse form the clock prefers become PyTorch's semi-structured tensors.

GPUs from compute capability 8.0 on multiply 2:4 matrices at up to twice the dense rate, but small or narrow layers lose
by it. So every layer is timed both ways on the shapes that the model gives it, and the faster form stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError

FASTER = 0.98
"""The sparse form is taken if it takes less than this share of the dense one's time."""

CAPABILITY = (8, 0)
"""Of the first GPUs that have sparse matrix units."""

Clock = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Timed:
    """One linear layer, both ways."""

    layer: str
    rows: int
    """Samples, or tokens, that the layer sees in the example."""
    dense: float | None
    """Seconds of a call; None: not timed."""
    sparse: float | None
    taken: bool
    """Whether the layer now holds the sparse form."""
    why: str


def accelerate(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    clock: Clock | None = None,
    convert: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Timed, ...]:
    """Give each 2:4 linear layer of `model` the form that is faster here, in place.

    Arguments:
        model: on a CUDA GPU, in float16 or bfloat16, in evaluation mode; trained to `NM(n=2, m=4)`. Where channels were
            put into an order first (`Permuted`), push it into the layers before: `openwork.slimming.permutations`.
        example_inputs: what the model is given in use: the batch decides which form wins.
        clock: seconds of a call; default: median of CUDA events.
        convert: default: `torch.sparse.to_sparse_semi_structured`.

    Returns:
        What was timed for every linear layer, and why its form stays.

    Raises UsageError without such a GPU; the CPU engine takes 2:4 weights as they are (`openwork.compile`).

    Source: Mishra et al. 2021, arXiv:2104.08378.
    """
    clock = clock or _cuda_clock()
    convert = convert or torch.sparse.to_sparse_semi_structured
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    seen = _inputs_of_linears(model, inputs)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        return tuple(_choose(name, layer, seen.get(name), clock, convert) for name, layer in layers)


def is_two_of_four(weight: Tensor) -> bool:
    """Whether at most 2 of every 4 consecutive weights of each row differ from zero."""
    if weight.dim() != 2 or weight.shape[1] % 4:
        return False
    return bool(((weight != 0).view(len(weight), -1, 4).sum(2) <= 2).all())


def _choose(name: str, layer: nn.Linear, x: Tensor | None, clock: Clock, convert: Callable[[Tensor], Tensor]) -> Timed:
    rows = 0 if x is None else x.numel() // x.shape[-1]
    if x is None:
        return Timed(name, rows, None, None, False, "the example does not reach it")
    if not is_two_of_four(layer.weight):
        return Timed(name, rows, None, None, False, "its weight is not 2:4")
    try:
        sparse = convert(layer.weight.detach())
    except (RuntimeError, ValueError, NotImplementedError) as error:  # shapes and types that PyTorch does not take
        return Timed(name, rows, None, None, False, str(error).strip().splitlines()[0])
    dense = clock(lambda: functional.linear(x, layer.weight, layer.bias))
    fast = clock(lambda: functional.linear(x, sparse, layer.bias))
    taken = fast < FASTER * dense
    if taken:
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return Timed(name, rows, dense, fast, taken, "sparse is faster" if taken else "dense is as fast or faster")


def _inputs_of_linears(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What each linear layer reads in a run; of several calls, the last."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, given: seen.update({name: given[0].detach()})

    hooks = [m.register_forward_pre_hook(note(name)) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _cuda_clock() -> Clock:
    """Median seconds of 50 calls by CUDA events."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY:
        raise UsageError(
            "2:4 acceleration needs a CUDA GPU of compute capability 8.0 or more, and this process sees none; on a CPU "
            "compile the model as it is: openwork.compile(model, example_inputs)"
        )

    def clock(call: Callable[[], Any]) -> float:
        seconds: list[float] = []
        for turn in range(60):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 10:
                seconds.append(begin.elapsed_time(end) / 1e3)
        return sorted(seconds)[len(seconds) // 2]

    return clock
