"""A rule of a recipe: which layers obey which constraint."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from ..config import Config
from ..constraints.base import Constraint
from ..errors import RecipeError


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Targets = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]


class Rule(Config):
    """A constraint for the weights of some layers.

    A target is `all`, `conv2d`, `linear`, `recurrent` (GRU, LSTM, RNN), `attention` (the projections inside
    `nn.MultiheadAttention`), the exact name of a layer (`layer1.0.conv1`) or of one of its weights
    (`gru.weight_hh_l0`), or `re:` and a regular expression that must match from the start of the name
    (`re:layer.*conv`). Where two rules hit the same weight, the later one wins, so general rules come first and
    exceptions after them.

    >>> from openwork import Block
    >>> rule = Rule(targets="re:layer.*conv", constraint=Block(shape=(4, 1), sparsity=0.9), ignore="layer1.0.conv1")
    """

    ERROR = RecipeError

    targets: Annotated[Targets, Field(min_length=1)]
    """Layers that the rule is for; one target or a list of them."""
    constraint: Annotated[SerializeAsAny[Constraint], BeforeValidator(Constraint.parse)]
    """The set that each of their weights must lie in."""
    ignore: Targets = ()
    """Layers left out, in the language of `targets`."""
    on_misfit: Literal["error", "pad", "skip"] = "error"
    """When a weight's shape does not divide into the constraint's blocks: stop, complete it with zeros, or leave the
    layer dense and say so in the result."""
