"""The worst of several losses made small: alternating projected gradient descent and ascent. No solver of recipes."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError

BISECTIONS = 60
"""Halvings of an interval: enough for all digits of a double."""


class Saddle(NamedTuple):
    """What `minmax` came to."""

    point: Tensor
    """The variable v, of the shape of the start."""
    weights: Tensor
    """Weights of the losses, [losses]: not negative, of sum 1; the largest is of the hardest loss."""
    losses: Tensor
    """The losses at `point`, [losses]."""


def minmax(
    losses: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int = 100,
    descent: float = 0.1,
    ascent: float = 0.1,
    gamma: float = 0.0,
    radius: float | None = None,
    norm: Literal["l2", "linf"] = "linf",
    low: Tensor | float | None = None,
    high: Tensor | float | None = None,
) -> Saddle:
    """min over v, max over weights w of  sum_i w_i F_i(v) - gamma/2 ||w - 1/K||^2,  w on the simplex, v in a ball.

    Each step descends on v, projects it onto the ball, evaluates the K losses there, ascends on w and projects it onto
    the simplex. A larger gamma keeps w nearer to equal weights, and the iteration steadier; with 0 the worst loss alone
    counts. Variables of any kind: a perturbation that fools several models, a parameter that serves several data sets.

    Arguments:
        losses: v -> the losses F_i(v), [K], differentiable in v.
        start: v before the first step, any shape; not changed.
        steps: descents, each with an ascent, >= 1.
        descent, ascent: step sizes of v and of w.
        gamma: weight of the regularizer on w, >= 0.
        radius, norm: the ball ||v|| <= radius around 0, of the L2 or the largest-entry norm over all of v; None: no
            ball.
        low, high: limits on entries of v, numbers or tensors that broadcast to it; None: no limit. With a ball, the
            box that they are must meet it.

    Raises UsageError for wrong numbers, and where the losses are no vector, or not finite.

    The point that is least far from the farthest of three others, which is the middle of the two that are outside:

    >>> import torch
    >>> places = torch.tensor([[0.0, 0.0], [4.0, 0.0], [1.0, 1.0]])
    >>> found = minmax(lambda v: (places - v).square().sum(1), torch.tensor([3.0, 1.0]), steps=2000, ascent=0.01)
    >>> found.point.add(0.0).round(decimals=2), found.weights.round(decimals=2)
    (tensor([2., 0.]), tensor([0.5000, 0.5000, 0.0000]))

    Source: Wang et al. 2021, arXiv:1906.03563 (APGDA).
    """
    _require(steps >= 1, f"steps={steps} must be at least 1")
    _require(descent > 0 and ascent > 0, f"descent={descent:g} and ascent={ascent:g} must be positive")
    _require(gamma >= 0, f"gamma={gamma:g} must not be negative")
    v = ball(start.detach(), radius, norm, low, high)
    values = _evaluated(losses, v, 0)
    weights = torch.full_like(values, 1 / len(values))
    for step in range(steps):
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((weights * values).sum(), v)
        v = ball(v.detach() - descent * slope, radius, norm, low, high)
        # At the new v: alternating steps settle where simultaneous ones may circle.
        values = _evaluated(losses, v, step + 1)
        weights = reweigh(weights, values.detach(), ascent, gamma)
    return Saddle(v.detach(), weights, values.detach())


def reweigh(weights: Tensor, losses: Tensor, ascent: float = 0.1, gamma: float = 0.0) -> Tensor:
    """One step of the maximizing side, for training loops of one's own: weights of the losses [K] that lean towards the
    larger ones,  projected onto the simplex:  w + ascent * (F - gamma (w - 1/K)).

    `weights` and `losses` are [K], or [batch, K] for weights of each example; detached. A network that is to do well on
    the worst of several data sets:

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model, weights = torch.nn.Linear(4, 2), torch.full((3,), 1 / 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sets = [(torch.randn(32, 4), torch.randint(0, 2, (32,))) for _ in range(3)]
    >>> for _ in range(20):
    ...     losses = torch.stack([torch.nn.functional.cross_entropy(model(x), y) for x, y in sets])
    ...     optimizer.zero_grad(); (weights * losses).sum().backward(); optimizer.step()
    ...     weights = reweigh(weights, losses, ascent=0.1, gamma=1.0)
    >>> float(weights.sum().round(decimals=4)), int(weights.argmax()) == int(losses.argmax())
    (1.0, True)

    Source: Wang et al. 2021, arXiv:1906.03563.
    """
    weights, losses = weights.detach(), losses.detach()
    return simplex(weights + ascent * (losses - gamma * (weights - 1 / weights.shape[-1])))


def simplex(v: Tensor) -> Tensor:
    """The nearest point with entries that are not negative and have sum 1, along the last axis (exact).

    Source: Duchi et al. 2008 (ICML), figure 1.
    """
    ordered = v.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, v.shape[-1] + 1, device=v.device)
    last = (ordered * count > excess).sum(-1, keepdim=True).clamp(min=1)
    return (v - excess.gather(-1, last - 1) / last).clamp(min=0.0)


def ball(
    v: Tensor,
    radius: float | None,
    norm: Literal["l2", "linf"] = "linf",
    low: Tensor | float | None = None,
    high: Tensor | float | None = None,
) -> Tensor:
    """The nearest point with ||v|| <= radius and low <= v <= high (exact, the L2 ball within a box by bisection)."""
    if norm not in ("l2", "linf"):
        raise UsageError(f"norm={norm!r} is not one of l2, linf")
    least = torch.full_like(v, -torch.inf) if low is None else torch.as_tensor(low).to(v).expand_as(v)
    most = torch.full_like(v, torch.inf) if high is None else torch.as_tensor(high).to(v).expand_as(v)
    _require(bool((least <= most).all()), "low is above high somewhere; there is no point between them")
    if radius is None:
        return v.clamp(least, most)
    _require(radius > 0, f"radius={radius:g} must be positive")
    if norm == "linf":
        _require(
            bool(((least <= radius) & (most >= -radius)).all()),
            f"no point between low and high has entries of at most radius={radius:g}; raise radius",
        )
        return v.clamp(least.clamp(min=-radius), most.clamp(max=radius))
    if float(v.clamp(least, most).norm()) <= radius:
        return v.clamp(least, most)
    if low is None and high is None:
        return v * (radius / float(v.norm()))
    nearest = float(torch.zeros_like(v).clamp(least, most).norm())
    _require(nearest <= radius, f"no point between low and high has a norm of at most radius={radius:g}; raise radius")
    # The nearest point is clamp(t v) for some t in [0, 1], and its norm rises with t.
    shrunk, whole = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (shrunk + whole) / 2
        if float((middle * v).clamp(least, most).norm()) <= radius:
            shrunk = middle
        else:
            whole = middle
    return (shrunk * v).clamp(least, most)


def _evaluated(losses: Callable[[Tensor], Tensor], v: Tensor, step: int) -> Tensor:
    """The losses at `v`, which remember the way there for the next descent."""
    with torch.enable_grad():
        values = losses(v.requires_grad_())
    _require(values.ndim == 1 and len(values) > 0, f"losses gave a tensor of shape {list(values.shape)}; give [K]")
    if not bool(values.isfinite().all()):
        raise UsageError(f"loss {values.tolist()} after {step} steps; lower descent, or bound v with radius")
    return values


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
