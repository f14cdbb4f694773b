"""Whether an engine says what PyTorch says of the same inputs."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..engine.engine import Engine
from ..errors import CompileError
from ..formats.program import torch_calls
from .capture import evaluating
from .lengths import shortened

TOLERANCE = 1e-3
"""Largest error against PyTorch, relative to the largest output, that is not a bug."""

ROUNDED_TOLERANCE = 2e-2
"""The same of a network that rounds its activations, of the norm of all differences relative to that of the outputs:
where a sum lies halfway between two numbers, its last bit decides which it becomes, and what comes after sees that."""

SHARE_OF_ROUNDING = 1.5
"""What is no bug either, as a share of what rounding its activations changes in a network at all. A last bit that tips
one rounding over tips over more of them in the next layer, until both sides round as if they knew nothing of each
other; their difference then has up to 2 ** 0.5 times the norm of what rounding did to each. Of six sentences through a
transformer of six layers, rounded in two ways, three come to 0.67, 0.73 and 0.79 of it, nine to less than 1e-4."""


def check(engine: Engine, model: nn.Module, inputs: tuple[Tensor, ...], level: int = 1) -> float:
    """Largest error of the engine on `inputs`, relative to the largest output, or to all outputs where the network
    rounds its activations; `CompileError` above the tolerance."""
    worst, limit = _measured(engine, model, inputs, level)
    if worst > limit:
        of = "all outputs together" if _rounds(engine) else "the largest output"
        raise CompileError(
            f"the engine's outputs differ from PyTorch's by {worst:.2g} of {of} (limit {limit:.2g}); please report "
            "this model"
        )
    return worst


def _measured(engine: Engine, model: nn.Module, inputs: tuple[Tensor, ...], level: int = 1) -> tuple[float, float]:
    """The error of an engine, and its limit."""
    worst, limit = _worst_error(engine, model, inputs, level), _tolerance(engine)
    if worst > limit and _rounds(engine):
        limit = max(limit, SHARE_OF_ROUNDING * _change_of_rounding(model, inputs))
    return worst, limit


def _rounds(engine: Engine) -> bool:
    """Whether an engine rounds activations to bytes, or PyTorch does for it."""
    program = engine.artifact.program
    if any(step.op.startswith(("quad_", "quantize")) for step in program.steps):
        return True
    return any("quantize" in call.target or call.target.startswith("aten.round.") for call in torch_calls(program))


def _tolerance(engine: Engine) -> float:
    return ROUNDED_TOLERANCE if _rounds(engine) else TOLERANCE


def name_of_error(engine: Engine) -> str:
    """What provenance calls the error that `check` found."""
    return "relative_error" if _rounds(engine) else "max_relative_error"


def check_padding(engine: Engine, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """`CompileError` if zeros after the end of a shorter sequence change what the model says of it."""
    short = shortened(inputs)
    worst, limit = _measured(engine, model, short)
    if worst > limit:
        raise CompileError(
            f"zeros that fill length {short[0].shape[1]} up to {inputs[0].shape[1]} change the outputs by {worst:.2g} "
            f"of the largest one (limit {limit:.2g}); give the model an attention mask, or leave any_length out"
        )


def _worst_error(engine: Engine, model: nn.Module, inputs: tuple[Tensor, ...], level: int = 1) -> float:
    with evaluating(model), torch.no_grad():
        wanted = tree_leaves(model(*inputs))  # as torch.export flattens lists and dicts
    got = engine(*inputs, level=level)
    results = zip([got] if isinstance(got, Tensor) else got, wanted, strict=True)
    rounds = _rounds(engine)
    return max(_error(ours, theirs.detach(), rounds) for ours, theirs in results)


class _Unrounded(TorchFunctionMode):
    """Activations lie within the levels that a network would round them to, but on none of them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.fake_quantize_per_tensor_affine, torch.ops.aten.fake_quantize_per_tensor_affine.default):
            return _within_levels(*args, **(kwargs or {}))
        if func in (torch.round, Tensor.round):  # of tokens that have scales of their own
            return args[0]
        return func(*args, **(kwargs or {}))


def _within_levels(input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    """`torch.fake_quantize_per_tensor_affine` without rounding; arguments are called as there."""
    return torch.clamp(input, (quant_min - zero_point) * scale, (quant_max - zero_point) * scale)


def _change_of_rounding(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Largest relative difference that rounding of activations makes in PyTorch; 0 where it is not known."""
    with evaluating(model), torch.no_grad():
        rounded = tree_leaves(model(*inputs))
        with _Unrounded():
            exact = tree_leaves(model(*inputs))
    found = max(_error(theirs, ours, rounds=True) for theirs, ours in zip(rounded, exact, strict=True))
    return found if math.isfinite(found) else 0.0


def _error(ours: Tensor, theirs: Tensor, rounds: bool = False) -> float:
    """Relative error of floats; of whole numbers, which a last bit before them may tip over, the share that differs."""
    if theirs.is_floating_point() or ours.is_floating_point():
        return _relative_error(ours.to(torch.float32), theirs.to(torch.float32), rounds)
    return float((ours != theirs).float().mean()) if ours.shape == theirs.shape else math.inf


def _relative_error(ours: Tensor, theirs: Tensor, rounds: bool = False) -> float:
    """Largest difference over the largest finite value, or where a network `rounds` the norm of all differences over
    that of all finite values; infinite where only one side is NaN or infinite."""
    if ours.shape != theirs.shape:
        return math.inf
    finite = torch.isfinite(theirs)
    if not torch.equal(ours[~finite].nan_to_num(1.5), theirs[~finite].nan_to_num(1.5)):
        return math.inf
    if not finite.any():
        return 0.0
    difference, size = ((t[finite].norm() if rounds else t[finite].abs().max()) for t in (ours - theirs, theirs))
    error = float(difference) / (float(size) or 1.0)
    return math.inf if math.isnan(error) else error
