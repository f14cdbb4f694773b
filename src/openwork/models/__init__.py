"""The model zoo, and the user's own models. `resolve` turns what a person names into a module."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import plugins
from ..data._user import call_factory, factory_module, is_file_spec
from ..errors import ModelError, UsageError
from .base import PRETRAINED, load_weights

__all__ = ["PRETRAINED", "example_inputs", "input_shape", "load_weights", "resolve"]


def resolve(spec: str | nn.Module, **options: Any) -> nn.Module:
    """The module that `spec` means, in evaluation mode.

    Arguments:
        spec: a zoo name ("cifar10_resnet20"), the user's own factory ("path/to/file.py:factory", returns a module),
            or a module.
        options: passed to the model's `build` or to the factory, such as `weights` (None: random; "pretrained": the
            published ones; a path: a safetensors file) or `classes`.

    Raises `UsageError` for an unknown name or file, `ModelError` for weights that are missing or do not fit.

        model = resolve("cifar10_resnet20", weights=None)
        logits = model(*example_inputs("cifar10_resnet20"))
    """
    if isinstance(spec, nn.Module):
        return spec
    if not is_file_spec(spec):
        return _build(spec, options)
    weights = options.pop("weights", PRETRAINED)
    found = call_factory(spec, ModelError, options)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{spec!r} returned {type(found).__name__}, not a torch.nn.Module")
    if weights not in (None, PRETRAINED):
        load_weights(found, Path(weights), spec)
    _check_finite(found, spec)
    return found.eval()


def input_shape(spec: str) -> tuple[int, ...] | None:
    """The shape of one float32 input, [1, ...], where the model's file sets `INPUT_SHAPE`, else None."""
    home = factory_module(spec) if is_file_spec(spec) else plugins.module("models", spec)
    shape = getattr(home, "INPUT_SHAPE", None)
    return None if shape is None else tuple(shape)


def example_inputs(spec: str, batch: int = 1, **options: Any) -> tuple[Tensor, ...]:
    """What one call of the model takes: random inputs, the same ones at every call, to compile and measure it with.

    Arguments:
        spec: a zoo name, or the user's own "path/to/file.py:factory". Its file sets `INPUT_SHAPE`, [1, ...], for a
            model of one float32 input; a model of several inputs, or of integers, has a function
            `example_inputs(batch, ...)` that returns them.
        batch: examples in them.
        options: passed to that function, such as `length` (tokens) of the language models.

    Raises `UsageError` where the file sets neither, or takes no such option.

        ids, mask = example_inputs("minilm", batch=4, length=32)
    """
    home = factory_module(spec) if is_file_spec(spec) else plugins.module("models", spec)
    function = getattr(home, "example_inputs", None)
    shape = getattr(home, "INPUT_SHAPE", None)
    known = inspect.signature(function).parameters.keys() if function is not None else set[str]()
    if odd := options.keys() - known:
        raise UsageError(f"the inputs of {spec} have no such option: {', '.join(map(repr, sorted(odd)))}")
    if function is not None:
        found = function(batch, **options)
        return (found,) if isinstance(found, Tensor) else tuple(found)
    if shape is None:
        remedy = "set INPUT_SHAPE in its file, or give --input-shape, such as --input-shape 3,32,32"
        raise UsageError(f"{spec} does not say what it takes; {remedy}")
    return (torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(0)),)


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    build = plugins.module("models", name).build
    if odd := options.keys() - inspect.signature(build).parameters.keys():
        raise ModelError(f"{name} takes no such option: {', '.join(map(repr, sorted(odd)))}")
    built: nn.Module = build(**options)
    return built


def _check_finite(model: nn.Module, name: str) -> None:
    for key, value in model.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{name!r}: the parameter {key} holds NaN or infinity; train again, or load other weights")
