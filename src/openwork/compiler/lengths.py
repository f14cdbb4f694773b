"""Which inputs and outputs of a model grow with the length of a sequence, and whether it may be padded with zeros."""

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import CompileError, UsageError
from ..formats.program import Lengths, ProgramSpec
from .capture import evaluating


def find_lengths(program: ProgramSpec, model: nn.Module, inputs: tuple[Tensor, ...]) -> Lengths:
    """What varies along axis 1, as the model's own outputs for a shorter sequence tell."""
    longest = sequence_length(inputs)
    short = shortened(inputs)
    try:
        with evaluating(model), torch.no_grad():
            outputs = tree_leaves(model(*short))
    except Exception as error:  # whatever a model raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CompileError(f"the model does not run at length {short_length(longest)}: {reason}") from error
    varying = []
    for i, (index, output) in enumerate(zip(program.outputs, outputs, strict=True)):
        shape = program.externals[index].shape
        if tuple(output.shape) == shape:
            continue
        if (*shape[:1], short_length(longest), *shape[2:]) != tuple(output.shape) or shape[1] != longest:
            raise CompileError(
                f"output {i} has shape {shape} at length {longest} and {tuple(output.shape)} at length "
                f"{short_length(longest)}: only its axis 1 may follow the length"
            )
        varying.append(i)
    return Lengths(longest, tuple(i for i, x in enumerate(inputs) if _varies(x, longest)), tuple(varying))


def sequence_length(inputs: tuple[Tensor, ...]) -> int:
    """Axis 1 of the first input; `UsageError` if there is nothing shorter."""
    if inputs[0].ndim < 2 or inputs[0].shape[1] < 2:
        raise UsageError(
            f"any_length wants a first input [batch, length, ...] with a length of at least 2, not "
            f"{tuple(inputs[0].shape)}"
        )
    return inputs[0].shape[1]


def shortened(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs cut to about half their length."""
    longest = sequence_length(inputs)
    return tuple(x[:, : short_length(longest)] if _varies(x, longest) else x for x in inputs)


def short_length(longest: int) -> int:
    """The length that is tried: odd where possible, so that it is no multiple of anything a kernel works in."""
    return max(1, longest // 2 - (1 - longest // 2 % 2))


def _varies(x: Tensor, longest: int) -> bool:
    return x.ndim >= 2 and x.shape[1] == longest
