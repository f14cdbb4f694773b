"""Pruning against attackers that guess which examples a network was trained on: what such an attacker gains."""

from torch import Tensor
from torch.nn import functional

from ..errors import UsageError


def membership_gain(members: Tensor, others: Tensor) -> Tensor:
    """1/2 E log h over examples that a network was trained on  +  1/2 E log(1 - h) over others,  h being the
    probability that an attacker gives to an example of having been trained on.

    The attacker maximizes it, and the network minimizes it beside the loss of its task:  min over W in S, max over the
    attacker of  L(W) + lambda G.  Never above 0; -log 2 where the attacker guesses. For given distributions p of
    members and q of others the best attacker is h = p / (p + q).

    Arguments:
        members, others: logits of h, any shapes; differentiable.

    Raises UsageError if there are no members or no others.

    >>> import torch
    >>> round(float(membership_gain(torch.zeros(8), torch.zeros(4))), 4)
    -0.6931

    Source: Wang et al. 2020, arXiv:2008.13578 (with pruning); Nasr et al. 2018, arXiv:1807.05852 (the game).
    """
    if not members.numel() or not others.numel():
        raise UsageError(f"{members.numel()} members and {others.numel()} others; give at least one of each")
    return (functional.logsigmoid(members).mean() + functional.logsigmoid(-others).mean()) / 2
