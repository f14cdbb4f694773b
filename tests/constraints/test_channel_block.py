"""Blocks along channels: against every choice of blocks, and what they are in a convolution."""

import itertools

import torch

from openwork.constraints.block import Block
from openwork.constraints.channel_block import ChannelBlock


def test_projection_is_the_nearest_of_all_choices() -> None:
    w = torch.randn(2, 4, 1, 2, generator=torch.Generator().manual_seed(0))
    blocks = [(slice(0, 2), slice(c, c + 2), 0, k) for k in range(2) for c in (0, 2)]
    best = min(
        sum(float(w[block].square().sum()) for block in dropped) for dropped in itertools.combinations(blocks, 2)
    )
    z = ChannelBlock(shape=(2, 2), sparsity=0.5).project(w)
    assert abs(float((w - z).square().sum()) - best) < 1e-5


def test_a_block_is_consecutive_channels_at_one_position() -> None:
    w = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(1))
    z = ChannelBlock(shape=(4, 4), sparsity=0.9).project(w)
    groups = (z != 0).unflatten(0, (2, 4)).unflatten(2, (4, 4)).sum((1, 3))  # [rows, groups of channels, kh, kw]
    assert set(groups.unique().tolist()) == {0, 16} and int((groups == 16).sum()) == round(0.1 * groups.numel())


def test_in_linear_layers_they_are_plain_blocks() -> None:
    w = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
    settings = {"shape": (4, 2), "sparsity": 0.75}
    assert torch.equal(ChannelBlock(**settings).project(w), Block(**settings).project(w))
