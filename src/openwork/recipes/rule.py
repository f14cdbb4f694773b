"""A rule of a recipe: which layers obey which constraint."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from .. import plugins
from ..config import Config
from ..constraints.base import Constraint, Rated, Share
from ..errors import RecipeError

MAX_SPARSITY = 0.97
"""The most that a budget may take of a layer, unless its rule says."""


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def for_all(value: Any) -> Any:
    """What is given for each target, or one value for all layers."""
    return value if isinstance(value, Mapping) else {"all": value}


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
    min_sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The least that the recipe's budget must take of each layer, or leave it dense where sparse is not faster."""
    max_sparsity: Share | None = None
    """The most that the budget may take of each layer. A constraint without its sparsity is the one at this bound."""

    @model_validator(mode="before")
    @classmethod
    def _open_at_the_bound(cls, fields: Any) -> Any:
        asked = fields.get("constraint") if isinstance(fields, Mapping) else None
        if not isinstance(asked, Mapping) or not _lacks_sparsity(asked):
            return fields
        bound = MAX_SPARSITY if fields.get("max_sparsity") is None else fields["max_sparsity"]
        return {**fields, "max_sparsity": bound, "constraint": {**asked, "sparsity": bound}}

    @model_validator(mode="after")
    def _bounds_are_of_what_is_open(self) -> Self:
        low, high = self.min_sparsity, self.max_sparsity
        if low is None and high is None:
            return self
        if not isinstance(self.constraint, Rated):
            raise ValueError(f"{self.constraint.kind()} has no sparsity that a budget could pick; leave out its bounds")
        if (has := self.constraint.sparsity) != high:
            raise ValueError(f"sparsity {has:g} is fixed; leave it out of the constraint, or leave out its bounds")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_sparsity {low:g} is above max_sparsity {high:g}; lower it")
        return self

    @property
    def open(self) -> bool:
        """Whether the recipe's budget picks the sparsity of each layer."""
        return self.max_sparsity is not None


def _lacks_sparsity(constraint: Mapping[str, Any]) -> bool:
    """Whether these are the fields of a constraint that needs a sparsity, without one."""
    if constraint.get("sparsity") is not None:
        return False
    kind = constraint.get("kind")
    return kind in plugins.names("constraints") and issubclass(plugins.find("constraints", kind, Constraint), Rated)  # type: ignore[type-abstract]
