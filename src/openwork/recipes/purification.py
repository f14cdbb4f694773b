"""What counts as nearly empty: the settings of network purification."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..config import Config
from ..errors import RecipeError
from .schedule import Proportion


class Purification(Config):
    """Which filters, channels and columns that pruning left nearly empty are emptied for good.

    A unit goes if few of its columns are left (`emptiness`) and it is small (`share`, `threshold`, or both). A column
    is one tap for all outputs, a channel the columns of one input, a filter those of one output.

    >>> Purification(share=0.01, units=("channel",)).emptiness
    0.5

    Source: Ma et al. 2019, arXiv:1905.00136, algorithm 1. Its thresholds are not published; these are our definitions.
    """

    ERROR = RecipeError

    share: Proportion | None = None
    """Most of its layer's energy (sum of squares) that a unit may hold, in [0, 1]."""
    threshold: Annotated[float, Field(ge=0)] | None = None
    """Largest L2 norm that a unit may have."""
    emptiness: Proportion = 0.5
    """Largest share of a unit's columns that may differ from zero, in [0, 1]; 1 leaves it to size alone. For columns,
    which have no parts, it does not count."""
    units: Annotated[tuple[Literal["filter", "channel", "column"], ...], Field(min_length=1)] = ("channel", "filter")
    """What is looked at, one after the other."""

    @model_validator(mode="after")
    def _some_size(self) -> "Purification":
        if self.share is None and self.threshold is None:
            raise ValueError("give a share of the layer's energy, a threshold of the L2 norm, or both")
        return self
