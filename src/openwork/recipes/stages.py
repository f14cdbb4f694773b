"""Steps against a model: each becomes a plain recipe, and a plan that cannot be followed is refused at once."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..constraints._padded import bare
from ..constraints.and_ import And
from ..constraints.base import Constraint, Rated
from ..errors import OpenworkError, RecipeError
from .match import Match, Prunable, match, targeted, weights
from .recipe import Recipe
from .rule import Rule
from .steps import Step


@dataclass(frozen=True)
class Stage:
    """A step of a recipe for a certain model."""

    recipe: Recipe
    """Rules, solver and schedule of the step; it has no steps itself."""
    freeze: float = 0.0
    """Share of the weights that are left which no longer move after the cut."""


def stages(recipe: Recipe, model: nn.Module) -> tuple[Stage, ...]:
    """The steps of `recipe` as plain recipes; a recipe without steps is its only one.

    Raises what `match` does, and RecipeError for budgets that grow from one step to the next, that are beyond the
    recipe's rules or a layer's size, or that contradict each other.
    """
    found = [_stage(recipe, number, step, model) for number, step in enumerate(recipe.steps or (Step(),))]
    _fit_each_other([(stage, match(stage.recipe, model)) for stage in found])
    return tuple(found)


def alike(a: Constraint, b: Constraint) -> bool:
    """Whether two sets are of one kind, so that one takes the place of the other: they differ in nothing but their
    sparsity, or both are of weights on levels."""
    if a.quantized and b.quantized:
        return True
    settings = [{name: value for name, value in bare(c) if name != "sparsity"} for c in (a, b)]
    return type(bare(a)) is type(bare(b)) and settings[0] == settings[1]


def _stage(recipe: Recipe, number: int, step: Step, model: nn.Module) -> Stage:
    last = number + 1 >= len(recipe.steps)
    skipped = ({"dense_epochs": 0} if number else {}) | ({} if last else {"quantize_epochs": 0})
    schedule = recipe.schedule.model_copy(update=step.schedule() | skipped)
    base = recipe.model_copy(
        update={
            "rules": step.rules or recipe.rules,
            "solver": step.solver or recipe.solver,
            "schedule": schedule,
            "steps": (),
            "quantize": recipe.quantize if last else None,
        }
    )
    try:
        matches = match(base, model)
    except OpenworkError as error:
        raise type(error)(f"steps[{number}].{error}" if step.rules else str(error)) from None
    wanted = _sparsities(base.rules, step, f"steps[{number}]", matches, weights(model))
    if wanted:
        base = base.model_copy(update={"rules": spelled_out(base.rules, matches, wanted)})
    if not base.rules:
        raise RecipeError(f"steps[{number}] prunes nothing: it keeps every weight; drop it")
    return Stage(base, step.freeze)


def _sparsities(
    rules: Sequence[Rule], step: Step, place: str, matches: Sequence[Match], layers: dict[str, Prunable]
) -> dict[str, float]:
    """The sparsity of each layer for which the step sets one; 0 where it leaves all weights."""
    held = {m.name: m for m in matches if m.constraint is not None}
    if step.rate is not None or step.share is not None:
        own = {name: 1 - _sparsity(rules, m, place) for name, m in held.items()}
        share = step.share if step.rate is None else _share(step.rate, own, matches, place)
        assert share is not None
        return {name: 1 - density**share for name, density in own.items()}
    found: dict[str, tuple[str, float]] = {}
    for field, budgets in (("keep", step.keep), ("sparsity", step.sparsity)):
        for target, value in budgets.items():
            meant = targeted(target, layers, f"{place}.{field}")
            hits = [name for name in held if name in meant]
            if not hits:
                raise RecipeError(f"{place}.{field}: no rule prunes {target!r}; add a rule for it, or drop it here")
            for name in hits:
                _sparsity(rules, held[name], place)
                said = f"{field} {value:g} ({target!r})"
                if name in found:
                    raise RecipeError(f"{place}: layer {name!r} has {found[name][0]} and {said}; give it one budget")
                found[name] = said, value if field == "sparsity" else _kept_to_sparsity(value, held[name], place)
    return {name: sparsity for name, (_, sparsity) in found.items()}


def _sparsity(rules: Sequence[Rule], found: Match, place: str) -> float:
    """What the rule of a layer says."""
    assert found.rule is not None
    constraint = rules[found.rule].constraint
    if not isinstance(constraint, Rated):
        raise RecipeError(
            f"{place}: {constraint.kind()} of layer {found.name!r} has no sparsity that keep, sparsity, rate, share or "
            "count could set; give the step rules of its own"
        )
    return constraint.sparsity


def _kept_to_sparsity(kept: float, found: Match, place: str) -> float:
    size = found.weight.numel()
    if kept > size:
        raise RecipeError(f"{place}.keep: layer {found.name!r} has {size} weights, it cannot keep {kept:g}; lower it")
    return 1 - kept / size


def _share(rate: float, densities: Mapping[str, float], matches: Sequence[Match], place: str) -> float:
    """The s for which densities d**s leave 1 / rate of all weights."""
    sizes = {m.name: m.weight.numel() for m in matches}
    total = sum({id(m.weight): m.weight.numel() for m in matches}.values())
    dense = total - sum(sizes[name] for name in densities)

    def left(share: float) -> float:
        return dense + sum(sizes[name] * math.pow(density, share) for name, density in densities.items())

    if rate > total / left(1) * (1 + 1e-9):
        most = total / left(1)
        raise RecipeError(f"{place}.rate: {rate:g} is beyond the rules' own {most:.4g}; lower it, or prune more there")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) * rate > total else (low, middle)
    return high


def spelled_out(rules: Sequence[Rule], matches: Sequence[Match], wanted: Mapping[str, float]) -> tuple[Rule, ...]:
    """The rules with a sparsity for each layer that `wanted` names, 0: none; layers of one rule and sparsity stay
    together."""
    together: dict[tuple[int, Constraint], list[str]] = defaultdict(list)
    for m in matches:
        if m.rule is not None and wanted.get(m.name) != 0:
            constraint = rules[m.rule].constraint
            if m.name in wanted:
                assert isinstance(constraint, Rated), "checked when the budget was read"
                constraint = constraint.at(wanted[m.name])
            together[m.rule, constraint].append(m.name)
    return tuple(
        # A model that is itself a layer has it under the empty name.
        Rule(targets=tuple(name or "re:$" for name in names), constraint=c, on_misfit=rules[at].on_misfit)
        for (at, c), names in together.items()
    )


def _fit_each_other(found: Sequence[tuple[Stage, Sequence[Match]]]) -> None:
    """Later steps may only prune more of the same, or other sets of zeros within what is left."""
    before: dict[str, list[tuple[int, Constraint]]] = defaultdict(list)
    frozen = any(stage.freeze for stage, _ in found)
    for number, (_, matches) in enumerate(found):
        for m in matches:
            if m.constraint is None:
                continue
            now = bare(m.constraint)
            for step, earlier in before[m.name]:
                if not _may_follow(now, earlier):
                    raise RecipeError(
                        f"steps[{number}]: layer {m.name!r} cannot be {now.kind()} after {earlier.kind()} in "
                        f"steps[{step}], since "
                        + (
                            "zeros would move to levels; set zeros of levels to 'stay'"
                            if now.quantized and not now.keeps_zeros
                            else "weights of one of them are tied; give them layers of their own"
                        )
                    )
                if alike(earlier, now) and _kept(now, m) > _kept(earlier, m):
                    raise RecipeError(
                        f"steps[{number}]: layer {m.name!r} would keep {_kept(now, m)} weights after "
                        f"{_kept(earlier, m)} in steps[{step}]; later steps may keep as many or fewer"
                    )
            if now.tied and frozen and not now.quantized:
                raise RecipeError(
                    f"steps[{number}]: layer {m.name!r} has tied weights ({now.kind()}), none can freeze; drop freeze"
                )
            before[m.name].append((number, now))
    for name, steps in before.items():
        _levels_freeze_in_place(name, steps, [stage.freeze for stage, _ in found])


def _levels_freeze_in_place(name: str, steps: Sequence[tuple[int, Constraint]], shares: Sequence[float]) -> None:
    """Weights that freeze on levels stay on them, so these must be the ones that the layer ends with."""
    last, end = steps[-1]
    for number, constraint in steps:
        if end.quantized and shares[number] and (number == last or constraint != end or not _settles(end)):
            raise RecipeError(
                f"steps[{number}].freeze: layer {name!r} ends on {end}; a share of it can freeze in steps before the "
                "last with these very levels, no codebook and no other ties; drop freeze, or give the step other rules"
            )


def _settles(constraint: Constraint) -> bool:
    """Whether levels, and zeros beside them, are all that ties weights, and have intervals to settle."""
    parts = constraint.of if isinstance(constraint, And) else (constraint,)
    return all(not part.tied or (part.quantized and getattr(part, "scheme", "") != "codebook") for part in parts)


def _may_follow(now: Constraint, earlier: Constraint) -> bool:
    """Whether a weight can come under a set in a later step than another: what the other holds must stay, or be let
    go."""
    if earlier.quantized and isinstance(earlier, And):
        return all(_may_follow(now, part) for part in earlier.of)
    return alike(earlier, now) or (now.keeps_zeros and not earlier.tied)


def _kept(constraint: Constraint, found: Match) -> int:
    size = found.weight.numel()
    return round((1 - getattr(constraint, "sparsity", 0.0)) * size)
