"""A budget: what the whole network may cost, in bytes, multiply-adds or measured time, instead of ratios by hand."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .. import plugins
from ..config import Config
from ..constraints.base import Share
from ..errors import RecipeError

COSTS = ("bytes", "macs", "latency")
"""What a budget can limit."""

RATIOS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97)
"""Sparsities that are tried of each layer, unless the budget says others."""

_UNITS: dict[str, dict[str, float]] = {
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "macs": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "latency": {"us": 1, "ms": 1e3, "s": 1e6},
}
_BARE = {"bytes": "B", "macs": "", "latency": ""}
"""Units of plain numbers; of times there is none."""
_SHOWN = {"bytes": ("B", "kB", "MB", "GB"), "macs": ("", "k", "M", "G"), "latency": ("us", "ms", "s")}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[A-Za-z]*)")


class Budget(Config):
    """What the compressed network may cost; the sparsity of each layer follows from it.

    An amount is a share of what the dense network costs (`60%`), or a number with a unit: bytes in B, kB, MB, GB, KiB,
    MiB, GiB; multiply-adds as they are, or in k, M, G; latency in us, ms, s. Of several amounts all must hold.

    >>> Budget(latency="60%", bytes="4 MB").limit("latency", dense=500.0)
    300.0
    """

    ERROR = RecipeError

    latency: str | None = None
    """Time of one inference of one example by this machine's engine: layers are timed at each ratio by its tuner."""
    bytes: str | None = None
    """Weights that rules can hit, each in the storage format of its pattern, or dense in 4 bytes."""
    macs: str | None = None
    """Multiply-adds of one example with weights that are not zero, in layers that rules can hit."""
    method: str = "convex"
    """Who picks: convex (least total loss on the convex hulls of the layers' curves) or greedy (one step after the
    other, the cheapest in loss for what it saves)."""
    scan: Literal["loss", "weights"] = "loss"
    """What sparsity harms: loss (on validation data, each layer pruned alone, without retraining) or weights (squared
    distance to the projection as a share of the layer's squared norm, which needs no data)."""
    examples: Annotated[int, Field(ge=1)] = 500
    """Validation examples of the scan, at most."""
    ratios: Annotated[tuple[Share, ...], Field(min_length=1)] = RATIOS
    """Sparsities that are tried of each layer, as far as its rule's bounds allow; the bounds are tried too."""

    @field_validator(*COSTS, mode="before")
    @classmethod
    def _is_an_amount(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if value is None:
            return None
        text = f"{value:.6f}".rstrip("0").rstrip(".") + _BARE[name] if _is_number(value) else str(value).strip()
        number, unit = _parsed(name, text)
        if number <= 0 or (unit == "%" and number > 100):
            raise ValueError(f"{text!r} is not {'in (0%, 100%]' if unit == '%' else 'above 0'}")
        return text

    @field_validator("method")
    @classmethod
    def _is_known(cls, value: str) -> str:
        known = plugins.names("allocation.methods")
        if value not in known:
            raise ValueError(plugins.unknown("method", value, known))
        return value

    @model_validator(mode="after")
    def _limits_something(self) -> "Budget":
        if not self.limited:
            raise ValueError(f"no budget among {', '.join(COSTS)}; write one, such as {{latency: 60%}}")
        return self

    @property
    def limited(self) -> tuple[str, ...]:
        """Which costs have a limit."""
        return tuple(name for name in COSTS if getattr(self, name) is not None)

    def limit(self, name: str, dense: float) -> float:
        """The most that cost `name` may be where the dense network's is `dense`: bytes, multiply-adds, microseconds."""
        number, unit = _parsed(name, getattr(self, name))
        return number / 100 * dense if unit == "%" else number * _UNITS[name][unit]


def shown(name: str, amount: float) -> str:
    """An amount for people: '4.1 MB', '12 M', '340 us'.

    >>> shown("bytes", 4100000), shown("latency", 1250.0)
    ('4.1 MB', '1.25 ms')
    """
    for unit in _SHOWN[name]:
        value = amount / _UNITS[name][unit]
        if abs(value) < 999.5:  # else three digits would make it 1e+03
            return f"{value:.3g} {unit}".strip()
    return f"{value:.0f} {unit}"


def _parsed(name: str, text: str) -> tuple[float, str]:
    found = _AMOUNT.fullmatch(text)
    if not found or found[2] not in ("%", *_UNITS[name]):
        units = ", ".join(unit or "no unit" for unit in _UNITS[name])
        raise ValueError(f"{text!r} is not an amount; write a share such as 60%, or a number in {units}")
    return float(found[1]), found[2]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
