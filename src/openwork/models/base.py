"""What every zoo model shares: where its weights come from, and the check that they fit."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..data.base import data_root
from ..errors import ModelError
from ..slimming.narrow import SLIMMED, fit

M = TypeVar("M", bound=nn.Module)

PRETRAINED = "pretrained"
"""The value of `weights` that asks for the published weights of a model."""


Rename = Callable[[str], str | None]
"""The model's name of a tensor that is called so in a file; None: the model does without it."""


def with_weights(
    model: M,
    name: str,
    weights: str | Path | None,
    published: bool | Callable[[], Path] = False,
    rename: Rename | None = None,
) -> M:
    """`model` with the weights that `weights` means, in evaluation mode.

    Arguments:
        name: the model's name in the zoo, for messages and file names.
        weights: None keeps the random initialisation; "pretrained" reads the published ones; anything else is the path
            of a safetensors (or .pth) file with plain torch names.
        published: whether published weights of this model are known. They lie in `DATA/weights/NAME.safetensors`, or
            where a function says that is given here.
        rename: for files that others write under names of their own.

    Raises `ModelError` where there are no such weights, or they do not fit, or hold NaN or infinity.
    """
    if weights is None:
        return model.eval()
    if weights == PRETRAINED and not published:
        raise ModelError(f"{name} has no published weights; pass weights=None, or the path of a .safetensors file")
    if weights != PRETRAINED:
        path = Path(weights).expanduser()
    elif callable(published):
        path = published()
    else:
        path = data_root() / "weights" / f"{name}.safetensors"
    if not path.is_file():
        remedy = (
            "run `openwork data get weights`, set OPENWORK_DATA to the folder that holds weights/, or pass weights=None"
            if weights == PRETRAINED
            else "pass the path of a .safetensors file"
        )
        raise ModelError(f"{name}: there are no weights at {path}; {remedy}")
    load_weights(model, path, name, rename)
    return model.eval()


def load_weights(model: nn.Module, path: Path, name: str, rename: Rename | None = None) -> None:
    """Put the tensors of a file into `model`; names and shapes must agree, values must be finite.

    Layers become narrower if the file says that it holds a slimmed network.
    """
    state = _read(path, name)
    if path.suffix != ".pth" and metadata_of(path).get("openwork") == SLIMMED:
        fit(model, state)
    if rename is not None:
        state = {ours: value for key, value in state.items() if (ours := rename(key)) is not None}
    # Older files lack the counters of batch norm, which play no part in the result.
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if problem := _difference(own, given):
        raise ModelError(f"{name}: {path} does not fit: {problem}")
    broken = [key for key, value in given.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{name}: {path} holds NaN or infinity in {broken[0]}; train again, or take an earlier file")
    model.load_state_dict(state, strict=False)


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors in a safetensors file, or in a .pth file that holds nothing else: no code of it is run."""
    pickled = path.suffix == ".pth"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True) if pickled else load_file(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        kind = "a .pth file of tensors alone" if pickled else "a whole safetensors file"
        raise ModelError(f"{name}: {path} is not {kind} ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{name}: {path} holds more than tensors; save model.state_dict() alone")
    return found


def _difference(own: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """What keeps the tensors `given` from being those of the model; empty if nothing does."""
    if missing := sorted(own.keys() - given.keys()):
        return f"{missing[0]} is missing" + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
    if extra := sorted(given.keys() - own.keys()):
        return f"{extra[0]} is not in the model" + (f" (and {len(extra) - 1} more)" if len(extra) > 1 else "")
    for key, value in own.items():
        if given[key].shape != value.shape:
            return f"{key} has shape {list(given[key].shape)}, the model wants {list(value.shape)}"
    return ""


def initialise(model: nn.Module) -> None:
    """He initialisation of convolutions (fan out), as the published ResNets, VGGs and MobileNets use it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
