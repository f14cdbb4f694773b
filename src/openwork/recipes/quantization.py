"""How a network is brought to integers of a few bits after pruning: which layers, how many bits, ranges from where."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from .. import plugins
from ..config import Config
from ..errors import RecipeError
from .rule import Targets, for_all


def _bits(value: int) -> int:
    if not 2 <= value <= 8:
        raise ValueError(f"{value} is not in 2..8; choose 2 to 8 bits, or for weights of 1 bit a rule with levels")
    return value


Bits = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[int, AfterValidator(_bits)]],
    BeforeValidator(for_all),
    Field(min_length=1),
]
"""Bits by target, as `{all: 4, conv1: 8}`, later ones winning; one number is that of all layers."""


class WeightGrids(Config):
    """Weights that are whole numbers times a scale of their output channel; in layers whose pattern ties weights
    together, of their layer.

    >>> WeightGrids(bits={"all": 4, "head": 8}).bits
    {'all': 4, 'head': 8}
    """

    ERROR = RecipeError

    bits: Bits = Field(default_factory=lambda: {"all": 8})
    """2 to 8 for each weight: -127 .. 127 with 8, -7 .. 7 with 4."""


class ActivationGrids(Config):
    """Inputs of layers that are whole numbers times a scale of the layer: 0 .. 255 with 8 bits where they were never
    negative, else -127 .. 127.

    >>> ActivationGrids(bits=4, observer="minmax").batches
    8
    """

    ERROR = RecipeError

    bits: Bits = Field(default_factory=lambda: {"all": 8})
    """2 to 8 for each value."""
    observer: str = "mse"
    """Where a grid ends: one of `openwork.quantization.observers`, such as mse, where the squared error is least, or
    minmax, at the largest magnitude."""
    batches: Annotated[int, Field(ge=1)] = 8
    """Training batches from which ranges are taken before any training with them."""
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.99
    """How slowly scales follow the data while the network is trained; 1 keeps them as they were calibrated."""

    @field_validator("observer")
    @classmethod
    def _is_known(cls, value: str) -> str:
        known = plugins.names("quantization.observers")
        if value not in known:
            raise ValueError(plugins.unknown("observer", value, known))
        return value


class Quantization(Config):
    """Weights and inputs of convolutions and linear layers as whole numbers of a few bits, after the last step.

    They are rounded in floats, so that training goes on for `quantize_epochs` of the schedule with what an engine of
    integers will compute. Zeros and ties of constraints hold. Layers that rules have put on `Levels` keep these, and
    only their inputs are rounded. Recurrent layers and attention in one module stay as they are.

    >>> settings = Quantization(weights={"bits": 4}, activations={"bits": 8, "observer": "minmax"}, ignore="conv1")

    Source: Jacob et al. 2018, arXiv:1712.05877 (rounding while training, moving averages of ranges); Nagel et al. 2021,
    arXiv:2106.08295 (a scale for each output channel).
    """

    ERROR = RecipeError

    weights: WeightGrids | None = WeightGrids()
    """Grids of weights; null leaves them as they are."""
    activations: ActivationGrids | None = ActivationGrids()
    """Grids of the layers' inputs; null leaves them as they are."""
    ignore: Targets = ()
    """Layers left out, in the language of a rule's targets."""
