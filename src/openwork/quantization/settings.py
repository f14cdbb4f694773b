"""What people choose about post-training quantization."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from ..config import Config
from .observers.base import Observer
from .weights import Range

LEAST, MOST = 2, 8
"""Bits of a code."""


def _bits(value: int) -> int:
    if not LEAST <= value <= MOST:
        raise ValueError(
            f"{value} is not in {LEAST}..{MOST}; choose {LEAST} to {MOST} bits, or leave layers in float32 with leave"
        )
    return value


def _observer(value: Any) -> Any:
    return Observer.parse({"kind": value} if isinstance(value, str) else value)


Bits = Annotated[int, AfterValidator(_bits)]


class Settings(Config):
    """Settings of `openwork.quantize`."""

    weight_bits: Bits = 8
    """Bits of a weight, 2..8."""
    activation_bits: Bits = 8
    """Bits of an activation, 2..8."""
    observer: Annotated[SerializeAsAny[Observer], BeforeValidator(_observer)] = Field(
        default="mse", validate_default=True
    )
    """How the largest magnitude of an activation's grid is chosen: a name, or an object with settings of its own."""
    weights: Range = "mse"
    """How the interval of an output channel is chosen: for the least squared error, or so that nothing is clipped."""
    correct_bias: bool = True
    """Take the mean error of each output channel into its bias."""
    per_row: bool = False
    """Round every row that linear layers read by its own largest value, found when the network runs."""
    equalize: bool = False
    """Bring the ranges of neighbouring layers together first."""
    leave: tuple[str, ...] = ()
    """Names of layers that stay in float32."""
    samples: int = Field(default=256, ge=1)
    """Calibration samples, at most."""
    measured: int = Field(default=8, ge=0)
    """Samples on which each layer's share of the output error is measured; 0: none."""
    saturation: float = Field(default=0.01, gt=0, le=1)
    """Share of an activation's values more than a step beyond its grid from which on it is reported."""
