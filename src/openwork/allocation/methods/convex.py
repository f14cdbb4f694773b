"""Convex: the least total loss on the lower convex hulls of the layers' curves, found by a price on each cost."""

import math
from collections.abc import Callable, Mapping, Sequence

from ..tables import LayerTable, Limits, Picks, loss, met, total

ROUNDS = 4
"""Of prices, where several costs have a limit."""
HALVINGS = 200
"""Of an interval of prices; the exponents of floats are exhausted first."""


def pick(layers: Sequence[LayerTable], limits: Limits) -> Picks:
    """argmin sum of losses  s.t.  sum of costs <= limit, by Lagrangian relaxation, then the one change that helps most.

    At prices p each layer takes its argmin of loss + p * cost by itself, which is a corner of its hull; the lowest
    price at which the limit holds is found by bisection. What that gives has the least loss of all allocations that
    cost no more than it does (Everett), and one layer is then taken back as far as what is left of the limit allows, so
    that a larger budget never loses more. Several limits: their prices are lowered in turn, each as far as the others
    allow (heuristic).

    Source: Everett 1963, "Generalized Lagrange multiplier method"; Shoham and Gersho 1988 (bit allocation).
    """
    return _no_sparser_for_nothing(layers, _one_back(layers, on_hulls(layers, limits), limits), limits)


def on_hulls(layers: Sequence[LayerTable], limits: Limits) -> Picks:
    """The corners of the layers' hulls at the lowest prices at which every limit holds."""
    scale = {name: total(layers, (0,) * len(layers), name) or 1.0 for name in limits}
    prices = dict.fromkeys(limits, 0.0)

    def lowest(name: str, wanted: Limits, high: float = math.inf) -> float:
        return _lowest(lambda price: met(layers, _at_prices(layers, {**prices, name: price}, scale), wanted), high)

    for name, limit in limits.items():
        prices[name] = lowest(name, {name: limit})
    for _ in range(ROUNDS if len(limits) > 1 else 0):
        for name in limits:
            prices[name] = lowest(name, limits, prices[name])
    return _at_prices(layers, prices, scale)


def _at_prices(layers: Sequence[LayerTable], prices: Mapping[str, float], scale: Mapping[str, float]) -> Picks:
    """Each layer's argmin of loss and paid costs; of equals the sparsest."""

    def paid(layer: LayerTable, number: int) -> tuple[float, int]:
        option = layer.options[number]
        return option.loss + sum(p * option.costs[name] / scale[name] for name, p in prices.items()), -number

    return tuple(min(range(len(layer.options)), key=lambda number: paid(layer, number)) for layer in layers)


def _lowest(holds: Callable[[float], bool], high: float = math.inf) -> float:
    """The lowest price at which `holds` (that of the upper end, where it does not at any other)."""
    if holds(0.0):
        return 0.0
    low, price = 0.0, 1e-12
    while price < min(high, 1e300) and not holds(price):
        low, price = price, price * 4
    high = min(high, price)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _one_back(layers: Sequence[LayerTable], picks: Picks, limits: Limits) -> Picks:
    """The allocation with the one other option of one layer that lowers the loss most within the limits."""
    changed = [
        (*picks[:at], number, *picks[at + 1 :]) for at, layer in enumerate(layers) for number in range(picks[at])
    ]
    return min([picks, *(p for p in changed if met(layers, p, limits))], key=lambda p: loss(layers, p))


def _no_sparser_for_nothing(layers: Sequence[LayerTable], picks: Picks, limits: Limits) -> Picks:
    """The same loss with each layer as dense as the limits allow: a scan sees no difference that noise hides."""
    for at, layer in enumerate(layers):
        equal = (n for n in range(picks[at]) if layer.options[n].loss == layer.options[picks[at]].loss)
        changed = ((*picks[:at], n, *picks[at + 1 :]) for n in equal)
        picks = next((p for p in changed if met(layers, p, limits)), picks)
    return picks
