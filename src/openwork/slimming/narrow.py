"""Modules with fewer channels: made from wider ones, and brought to the shapes of a file."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ._channels import Flow
from ._layer import Flags

SLIMMED = "slimmed"
"""What a file of weights says under `openwork` if layers are narrower than the model's own."""

_KINDS = (_ConvNd, nn.Linear, _BatchNorm, nn.PReLU)


def narrow(flow: Flow, stay: Flags) -> None:
    """Cut the channels of all classes but those in `stay` out of the modules of a network, in place."""
    for layer in flow.layers:
        rows, columns = (torch.from_numpy(stay[flow.classes[ids]]) for ids in (layer.writes, layer.reads))
        if bool(rows.all()) and bool(columns.all()):
            continue
        weight = _cut(layer.module.weight, rows, 1 if isinstance(layer.module, _ConvTransposeNd) else 0)
        if layer.groups == 1:
            weight = _cut(weight, columns, 0 if isinstance(layer.module, _ConvTransposeNd) else 1)
        _put(layer.module, {"weight": weight, "bias": _cut(layer.module.bias, rows)})
    for scale in flow.scales:
        rows = torch.from_numpy(stay[flow.classes[scale.ids]])
        if not bool(rows.all()):
            own = {**scale.module._parameters, **scale.module._buffers}
            _put(scale.module, {name: _cut(t, rows) for name, t in own.items() if t is not None and t.numel() > 1})


def fit(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the modules of `model` the narrower shapes, and the biases, that a slimmed network has in `state`.

    Values are not taken over; `load_state_dict` does that. What is no narrower form of the model is left as it is.
    """
    for name, module in model.named_modules():
        if isinstance(module, _KINDS):
            own: dict[str, Any] = {**module._parameters, **module._buffers}
            there = {key: state[full] for key in own if (full := f"{name}.{key}" if name else key) in state}
            if all(_narrower(own[key], tensor) for key, tensor in there.items()):
                other = {key: t for key, t in there.items() if own[key] is None or own[key].shape != t.shape}
                _put(module, {key: torch.empty_like(tensor) for key, tensor in other.items()})


def _narrower(own: Tensor | None, other: Tensor) -> bool:
    return own is None or (own.ndim == other.ndim and all(a >= b for a, b in zip(own.shape, other.shape, strict=True)))


def _cut(tensor: Tensor | None, keep: Tensor, axis: int = 0) -> Any:
    return None if tensor is None else tensor.detach().index_select(axis, keep.nonzero().flatten().to(tensor.device))


def _put(module: nn.Module, tensors: Mapping[str, Tensor | None]) -> None:
    """New tensors for parameters and buffers, and the sizes that the module knows of itself."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        old = getattr(module, name)
        if name in module._buffers:
            setattr(module, name, tensor)
        else:
            grad = old.requires_grad if old is not None else True
            setattr(module, name, nn.Parameter(tensor, requires_grad=grad))
    told: Any = module
    if isinstance(module, _ConvNd):
        swapped = isinstance(module, _ConvTransposeNd)
        outputs, inputs = module.weight.shape[int(swapped)], module.weight.shape[1 - int(swapped)]
        if module.groups > 1:
            told.groups = outputs // (module.out_channels // module.groups)
        told.out_channels, told.in_channels = outputs, inputs * module.groups
    elif isinstance(module, nn.Linear):
        told.out_features, told.in_features = module.weight.shape
    elif isinstance(module, _BatchNorm):
        lasting = module.weight if module.weight is not None else module.running_mean
        told.num_features = module.num_features if lasting is None else len(lasting)
    elif isinstance(module, nn.PReLU):
        told.num_parameters = len(module.weight)
