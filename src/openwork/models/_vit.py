"""Vision transformers with timm's names of layers.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929 (the model); Touvron et al. 2021, arXiv:2012.12877 (initial weights).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NORM_EPS = 1e-6


class Attention(nn.Module):
    """[batch, tokens, width] to the same: every token looks at all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # each [batch, heads, tokens, width / heads]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        y: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and MLP, each on normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class PatchEmbed(nn.Module):
    """[batch, 3, side, side] to [batch, patches, width], row by row."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return y


class VisionTransformer(nn.Module):
    """[batch, 3, side, side] to logits [batch, classes], read off the class token."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, side: int, classes: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.head = nn.Linear(width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def _initialise(model: VisionTransformer) -> None:
    """Truncated normal weights of deviation 0.02, as DeiT's training code has it."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for parameter in (model.cls_token, model.pos_embed):
        nn.init.trunc_normal_(parameter, std=0.02)
