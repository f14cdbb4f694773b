"""Greedy: one layer after the other goes a step sparser, always the one that loses least for what it saves."""

from collections.abc import Sequence

from ..tables import LayerTable, Limits, Option, Picks, total


def pick(layers: Sequence[LayerTable], limits: Limits) -> Picks:
    """From all dense, the step with the least loss for each unit saved, until every limit holds.

    Several limits: what a step saves of each that does not hold yet is summed, as a share of what is too much of it.
    """
    picks = [0] * len(layers)
    while over := _over(layers, tuple(picks), limits):
        steps = [step for at, layer in enumerate(layers) if (step := _step(layer, picks[at], at, over))]
        if not steps:
            break
        _, at, to = min(steps)
        picks[at] = to
    return tuple(picks)


def _over(layers: Sequence[LayerTable], picks: Picks, limits: Limits) -> dict[str, float]:
    """What is exceeded, with what one unit of it counts: by how much it is."""
    excess = {name: total(layers, picks, name) - limit for name, limit in limits.items()}
    over = {name: amount for name, amount in excess.items() if amount > 0}
    # One cost needs no common unit, and then the order of steps is the same for every limit.
    return over if len(limits) > 1 else dict.fromkeys(over, 1.0)


def _step(layer: LayerTable, here: int, at: int, over: Limits) -> tuple[float, int, int] | None:
    """Loss for each unit saved by the next option that saves anything, the layer's number, the option's."""
    now = layer.options[here]
    for to, then in enumerate(layer.options[here + 1 :], here + 1):
        if saved := _saved(now, then, over):
            return (then.loss - now.loss) / saved, at, to
    return None


def _saved(now: Option, then: Option, over: Limits) -> float:
    return sum(max(0.0, now.costs[name] - then.costs[name]) / amount for name, amount in over.items())
