"""Rules against a model: which weight obeys which constraint, and what is left dense and why."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .. import plugins
from ..constraints._padded import Padded
from ..constraints.base import Constraint
from ..errors import ModelError, RecipeError, ShapeError
from .recipe import Recipe
from .rule import Rule

_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv2d": (nn.Conv2d,),
    "linear": (nn.Linear,),
    "recurrent": (nn.RNNBase, nn.RNNCellBase),
    "attention": (nn.MultiheadAttention,),
}
_ALL = "all"
_WHAT = "convolution, linear, recurrent or attention layer"


@dataclass(frozen=True)
class Prunable:
    """A weight that rules can hit."""

    layer: str
    """Name of its module in the model."""
    kind: str
    """'conv2d', 'linear', 'recurrent' or 'attention'."""
    weight: Tensor
    """`[out, in, kh, kw]` or `[out, in]`."""


@dataclass(frozen=True)
class Match:
    """A weight and what the recipe asks of it."""

    name: str
    """The layer's name in the model; of layers with several weights, the weight's own name."""
    weight: Tensor
    """`[out, in, kh, kw]` or `[out, in]`."""
    constraint: Constraint | None
    """None: the layer stays dense."""
    note: str = ""
    """Why a layer that a rule asked for stays dense."""
    rule: int | None = None
    """Place of the rule among the recipe's; None: no rule hits the layer."""


def weights(model: nn.Module) -> dict[str, Prunable]:
    """All weights that rules can hit and figures of sparsity count.

    Those of convolutions and linear layers are called as their layer, those of recurrent layers and attention, which
    have several, by their own name: `gru.weight_hh_l0`, `attention.in_proj_weight`.
    """
    found: dict[str, Prunable] = {}
    for layer, module in model.named_modules():
        kind = next((kind for kind, types in _KINDS.items() if isinstance(module, types)), "")
        if kind in ("conv2d", "linear"):
            found[layer] = Prunable(layer, kind, module.weight)
        elif kind:
            for name, weight in module.named_parameters(layer, recurse=False):
                if weight.ndim == 2:  # biases have one axis, or three
                    found[name] = Prunable(layer, kind, weight)
    return found


def match(recipe: Recipe, model: nn.Module) -> list[Match]:
    """What `recipe` asks of each weight of `model` that rules can hit, in the model's order.

    Raises RecipeError for a rule without a layer (listing near names) or whose layers all belong to later rules,
    ShapeError for a weight that a constraint cannot hold, ModelError for weights that are NaN, infinite or empty.
    """
    found = weights(model)
    if not found:
        raise ModelError(f"{type(model).__name__} has no {_WHAT}; there is nothing to prune")
    owners: dict[str, int] = {}
    for index, rule in enumerate(recipe.rules):
        for name in _targets(rule, index, found):
            owners[name] = index
    _no_rule_is_shadowed(recipe, owners)
    _no_weight_twice(found, owners)
    return [_fit(name, item.weight, recipe.rules, owners.get(name)) for name, item in found.items()]


def fitted(matches: Sequence[Match]) -> list[Match]:
    """The same matches, with constraints that have settled what depends on the weights as they are now.

    Layers of one rule settle together: kernel patterns, for example, are counted over all of them.
    """
    together: dict[tuple[int | None, Constraint], list[int]] = defaultdict(list)
    for at, m in enumerate(matches):
        if m.constraint is not None:
            together[m.rule, m.constraint].append(at)
    found = list(matches)
    for (_, constraint), places in together.items():
        settled = constraint.fitted([matches[at].weight for at in places])
        for at, one in zip(places, settled, strict=True):
            found[at] = replace(matches[at], constraint=one)
    return found


def _targets(rule: Rule, index: int, found: dict[str, Prunable]) -> list[str]:
    chosen = {name for target in rule.targets for name in targeted(target, found, f"rules[{index}].targets")}
    ignored = {name for target in rule.ignore for name in _hits(target, found, f"rules[{index}].ignore")}
    if not chosen - ignored:
        raise RecipeError(
            f"rules[{index}].ignore: {list(rule.ignore)} leaves none of the {len(chosen)} layers in targets"
        )
    return [name for name in found if name in chosen - ignored]


def targeted(target: str, found: dict[str, Prunable], field: str) -> set[str]:
    """The weights that a target means; RecipeError, naming `field`, if there are none."""
    hits = _hits(target, found, field)
    if not hits:
        what = plugins.unknown("layer", target.removeprefix("re:"), [*found, _ALL, *_KINDS])
        raise RecipeError(f"{field}: {target!r} matches no {_WHAT}; {what}")
    return hits


def _hits(target: str, found: dict[str, Prunable], field: str) -> set[str]:
    if target.startswith("re:"):
        try:
            pattern = re.compile(target[3:])
        except re.error as error:
            raise RecipeError(f"{field}: {target!r} is not a regular expression: {error}") from None
        return {name for name in found if pattern.match(name)}
    if named := {name for name, item in found.items() if target in (name, item.layer)}:
        return named
    return {name for name, item in found.items() if target.lower() in (_ALL, item.kind)}


def _no_rule_is_shadowed(recipe: Recipe, owners: dict[str, int]) -> None:
    for index in range(len(recipe.rules)):
        if index not in owners.values():
            raise RecipeError(f"rules[{index}]: later rules take all of its layers; drop it, or move it after them")


def _no_weight_twice(found: dict[str, Prunable], owners: dict[str, int]) -> None:
    users: dict[int, str] = {}
    for name in owners:
        first = users.setdefault(id(found[name].weight), name)
        if first != name:
            raise RecipeError(f"layers {first!r} and {name!r} share one weight; put one of them into 'ignore'")


def _fit(name: str, weight: Tensor, rules: Sequence[Rule], owner: int | None) -> Match:
    _usable(name, weight)
    if owner is None:
        return Match(name, weight, None)
    rule = rules[owner]
    try:
        rule.constraint.check(weight.shape)
    except ShapeError as error:
        if rule.on_misfit == "skip":
            return Match(name, weight, None, note=str(error), rule=owner)
        if rule.on_misfit == "pad" and (padded := _completed(rule.constraint, weight)):
            return Match(name, weight, padded, rule=owner)
        raise ShapeError(f"rules[{owner}], layer {name!r}: {error}") from None
    return Match(name, weight, rule.constraint, rule=owner)


def _completed(constraint: Constraint, weight: Tensor) -> Padded | None:
    """The constraint on a weight with a border of zeros, if that is what the weight lacks."""
    padded = Padded(inner=constraint)
    try:
        padded.check(weight.shape)
    except ShapeError:
        return None
    return padded


def _usable(name: str, weight: Tensor) -> None:
    if weight.numel() == 0:
        shape = "x".join(map(str, weight.shape))
        raise ModelError(f"layer {name!r} has a weight of shape {shape} without elements; remove the layer")
    if bad := int((~weight.detach().isfinite()).sum()):
        raise ModelError(
            f"layer {name!r} has {bad} NaN or infinite weights of {weight.numel()}; start from finite weights"
        )
