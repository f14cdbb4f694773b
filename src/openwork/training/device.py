"""Where a network is trained."""

import torch

from .. import plugins
from ..errors import UsageError


def resolve(name: str | torch.device) -> torch.device:
    """The device called `name`, such as `cpu`, `cuda` or `cuda:1`; UsageError if this PyTorch has none here.

    >>> resolve("cpu")
    device(type='cpu')
    """
    if str(name) not in (known := available()):
        none = f" (PyTorch {torch.__version__} sees no GPU)" if len(known) == 1 else ""
        raise UsageError(f"{plugins.unknown('device', str(name), known)}{none}")
    return torch.device(name)


def available() -> list[str]:
    """Devices that can be trained on here. Apple's `mps` cannot: it has no double precision, in which projections are
    worked out."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if kind is None or kind.type == "mps":
        return ["cpu"]
    return ["cpu", kind.type, *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))]
