"""Whether a layer that was made narrower still has the layout of its constraint."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..constraints._padded import Padded
from ..constraints.and_ import And
from ..constraints.base import Constraint, Rated, Sparsity
from ..errors import ShapeError
from ..recipes.match import fitted, match
from ..recipes.recipe import Recipe


def constraints_of(model: nn.Module, recipe: Recipe) -> dict[str, Constraint]:
    """What a recipe asks of each weight that obeys it, settled on the weights as they are."""
    found = fitted(match(recipe, model))
    return {m.name: m.constraint for m in found if m.constraint and m.constraint.violations(m.weight) == 0}


def require_held(
    constraints: Mapping[str, Constraint], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> None:
    """ShapeError if a weight has lost its layout; names of weights are those of layers."""
    for name, constraint in constraints.items():
        if why := _broken(constraint, before[name].detach(), after[name].detach()):
            shapes = " to ".join("x".join(map(str, t[name].shape)) for t in (before, after))
            raise ShapeError(
                f"slimming layer {name!r} from {shapes} would break its constraint {constraint} ({why}); keep the "
                f"layer as it is (keep=[{name!r}]), or slim without the recipe"
            )


def _broken(constraint: Constraint, before: Tensor, after: Tensor) -> str:
    """What is wrong with a weight that was a member of its constraint before it became smaller; empty: nothing."""
    try:
        constraint.check(after.shape)
    except ShapeError as error:
        return str(error)
    if isinstance(constraint, And):
        return next(filter(None, (_broken(part, before, after) for part in constraint.of)), "")
    if isinstance(constraint, Padded):
        return _broken(constraint.inner, constraint.padded(before), constraint.padded(after))
    if isinstance(constraint, Sparsity):  # a share of groups says nothing of a smaller matrix, full groups do
        was, now = _fullness(constraint, before), _fullness(constraint, after)
        return f"its groups of weights were {was:.0%} full and would be {now:.0%} full" if now < 0.99 * was else ""
    as_many = _scaled(constraint, before.numel() / after.numel())
    broken = 0 if as_many is None else as_many.violations(after)
    return f"{broken} violations" if broken else ""


def _fullness(constraint: Sparsity, weight: Tensor) -> float:
    """Share of the weights in groups that are not empty which differ from zero."""
    groups = constraint.spread(constraint.scores((weight != 0).float()) > 0, weight.shape).expand(weight.shape)
    return int(weight.count_nonzero()) / max(1, int(groups.sum()))


def _scaled(constraint: Constraint, factor: float) -> Constraint | None:
    """The same layout with room for as many weights in a matrix `factor` times smaller; None: room for all."""
    if isinstance(inside := getattr(constraint, "of", None), Constraint):
        found = _scaled(inside, factor)
        return constraint.model_copy(update={"of": found}) if found else None
    if not isinstance(constraint, Rated):
        return constraint
    fewer = 1 - (1 - constraint.sparsity) * factor
    return constraint.at(fewer) if fewer > 0 else None
