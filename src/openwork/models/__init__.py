"""The model zoo, and the user's own models. `resolve` turns what a person names into a module."""

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import plugins
from ..data._user import call_factory, factory_module, is_file_spec
from ..errors import ModelError
from .base import PRETRAINED, load_weights

__all__ = ["PRETRAINED", "input_shape", "load_weights", "resolve"]


def resolve(spec: str | nn.Module, **options: Any) -> nn.Module:
    """The module that `spec` means, in evaluation mode.

    Arguments:
        spec: a zoo name ("cifar10_resnet20"), the user's own factory ("path/to/file.py:factory", returns a module),
            or a module.
        options: passed to the model's `build` or to the factory, such as `weights` (None: random; "pretrained": the
            published ones; a path: a safetensors file) or `classes`.

    Raises `UsageError` for an unknown name or file, `ModelError` for weights that are missing or do not fit.

        model = resolve("cifar10_resnet20", weights=None)
        logits = model(torch.zeros(input_shape("cifar10_resnet20")))
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
    """The shape of one input, [1, ...]: known of zoo models and of a user's file that sets `INPUT_SHAPE`, else None."""
    home = factory_module(spec) if is_file_spec(spec) else plugins.module("models", spec)
    shape = getattr(home, "INPUT_SHAPE", None)
    return None if shape is None else tuple(shape)


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
