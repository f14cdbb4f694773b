"""Attention, layer norm, embeddings and tokens against PyTorch, and how models write them."""

import pytest
import torch
from small_models import assert_agrees, compiled, left_to_torch
from torch import nn
from torch.nn import functional as F

import openwork
from openwork.errors import EngineError

WIDTH, HEADS, LENGTH = 24, 3, 19


class Block(nn.Module):
    """Attention over tokens [N, S, WIDTH], written in one of the ways that models write it."""

    def __init__(self, way: str, mask: str = "none") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.mask = way, mask
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer("slope", torch.randn(HEADS, LENGTH, LENGTH))
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)

    def split(self, x):
        n, s, _ = x.shape
        if self.way == "stacked":
            return self.qkv(x).view(n, s, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.way == "selected":
            qkv = self.qkv(x).reshape(n, s, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            return qkv[0], qkv[1], qkv[2]
        parts = self.qkv(x).chunk(3, dim=-1) if self.way == "chunks" else self.qkv(x).split(WIDTH, 2)
        if self.way == "slices":
            whole = self.qkv(x)
            parts = whole[..., :WIDTH], whole[..., WIDTH : 2 * WIDTH], whole[..., 2 * WIDTH :]
        return tuple(p.view(n, s, HEADS, -1).transpose(1, 2) for p in parts)

    def masked(self, x, present):
        s = x.shape[1]
        if self.mask == "key padding":
            return {"attn_mask": present.bool()[:, None, None, :]}
        if self.mask == "added":
            return {"attn_mask": (1.0 - present[:, None, None, :].float()) * torch.finfo(torch.float32).min}
        if self.mask == "causal and padding":
            causal = torch.ones(s, s, dtype=torch.bool).tril()
            return {"attn_mask": causal & present.bool()[:, None, None, :]}
        if self.mask == "bias":
            return {"attn_mask": self.slope[:, :s, :s]}
        return {"is_causal": self.mask == "causal"}

    def forward(self, x, present=None):
        n, s, _ = x.shape
        y = F.scaled_dot_product_attention(*self.split(x), **self.masked(x, present)).transpose(1, 2)
        y = y.reshape(n, s, WIDTH) if self.way in ("chunks", "stacked") else y.contiguous().flatten(2)
        return self.norm(x + self.out(y))


def presence(batch: int) -> torch.Tensor:
    present = torch.ones(batch, LENGTH, dtype=torch.int64)
    present[-1, LENGTH // 2 :] = 0
    return present


class SpelledOut(Block):
    """Attention operator by operator, as models write it that do not call PyTorch's."""

    def forward(self, x, present=None):
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        scores = scores * q.shape[-1] ** -0.5 if self.mask == "none" else scores / q.shape[-1] ** 0.5
        if self.mask != "none":
            scores = scores + self.masked(x, present)["attn_mask"]
        y = F.dropout(F.softmax(scores, dim=-1), 0.1, self.training) @ v
        return self.norm(self.out(y.transpose(1, 2).reshape(x.shape)))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", ["none", "added", "bias"])
def test_attention_that_is_spelled_out_is_native(mask, batch):
    model, x = SpelledOut("split", mask).eval(), torch.randn(batch, LENGTH, WIDTH)
    inputs = (x, presence(batch)) if mask == "added" else (x,)
    engine = openwork.compile(model, inputs, threads=1, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)


class Quotient(nn.Module):
    """Scores divided by a tensor: not the attention that is known."""

    def forward(self, x):
        h = x.view(1, 8, 2, 4).transpose(1, 2)
        return torch.softmax(h @ h.transpose(-1, -2) / x.abs().sum(), -1) @ h


def test_another_attention_is_left_to_pytorch():
    x = torch.randn(1, 8, 8)
    engine = openwork.compile(Quotient(), x, threads=1, tune="off")
    assert left_to_torch(engine)
    torch.testing.assert_close(engine(x), Quotient()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["chunks", "split", "slices", "stacked", "selected"])
def test_every_way_to_write_attention_is_native(way, batch):
    model, x = Block(way), torch.randn(batch, LENGTH, WIDTH)
    engine = openwork.compile(model, x, threads=2, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", ["causal", "bias", "key padding", "added", "causal and padding"])
def test_every_mask_is_native(mask, batch):
    model, x = Block("chunks", mask), torch.randn(batch, LENGTH, WIDTH)
    inputs = (x,) if mask in ("causal", "bias") else (x, presence(batch))
    engine = openwork.compile(model, inputs, threads=1, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)
    if len(inputs) == 2:  # other flags than those of the compilation
        inputs = (x, torch.ones_like(inputs[1]))
        torch.testing.assert_close(engine(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)


class Odd(nn.Module):
    """A mask that depends on more than which keys exist: the native form would be wrong."""

    def forward(self, q, present):
        pairs = present[:, None, :, None].bool() & present[:, None, None, :].bool()
        x = q.view(1, 8, 2, 4).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=pairs | torch.eye(8, dtype=torch.bool))


def test_a_mask_of_another_kind_is_left_to_pytorch():
    x, present = torch.randn(1, 8, 8), torch.tensor([[1, 1, 1, 0, 1, 0, 1, 1]])
    engine = openwork.compile(Odd(), (x, present), threads=1, tune="off")
    assert left_to_torch(engine)
    torch.testing.assert_close(engine(x, present), Odd()(x, present), rtol=1e-4, atol=1e-4)


class Cross(nn.Module):
    """Queries from one sequence, keys from another of another length; heads are returned apart."""

    def forward(self, x, y):
        q, k = (t.unflatten(2, (2, 6)).transpose(1, 2) for t in (x, y))
        return F.scaled_dot_product_attention(q, k, k, scale=0.3)


def test_cross_attention_and_heads_that_are_not_joined():
    x, y = torch.randn(2, 9, 12), torch.randn(2, 33, 12)
    engine = openwork.compile(Cross(), (x, y), threads=1, tune="off")
    assert left_to_torch(engine) == ["aten.reshape.default", "aten.transpose.int"]
    torch.testing.assert_close(engine(x, y), Cross()(x, y), rtol=1e-4, atol=1e-4)


class Patches(nn.Module):
    """A small vision transformer's ends: patches, class token, positions, the class token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 26, WIDTH))
        self.block, self.head = Block("chunks"), nn.Linear(WIDTH, 7)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        return self.head(self.block(x)[:, 0])


@pytest.mark.parametrize("batch", [1, 3])
def test_patches_class_token_and_positions_are_native(batch):
    model, x = Patches().eval(), torch.randn(batch, 3, 20, 20)
    engine = openwork.compile(model, x, threads=2, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
    engine(torch.randn(batch, 3, 20, 20))
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)  # constants outlive a run


class Words(nn.Module):
    """Embeddings of words and positions, normed."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids):
        return self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))


@pytest.mark.parametrize("batch", [1, 3])
def test_embeddings_are_native_and_check_their_ids(batch):
    model, ids = Words().eval(), torch.randint(0, 50, (batch, LENGTH))
    engine = openwork.compile(model, ids, threads=2, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(ids), model(ids), rtol=1e-4, atol=1e-4)
    ids[-1, 3] = 50
    with pytest.raises(EngineError, match=r"token 50 at position 3 is not in the vocabulary of 0\.\.49"):
        engine(ids)


class Mixed(nn.Module):
    """Tokens, features of all tokens and numbers of all features meet: gates as language models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.one = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 1)
        self.register_buffer("places", torch.randn(1, 40, 12))

    def forward(self, x):
        y = self.up(x) * F.silu(self.gate(x)) - self.gate(x) ** 3
        y = y * self.one(y) / 2 + 1
        return y * y[:, :1] if x.shape[1] != 40 else torch.maximum(y * self.places, y)


@pytest.mark.parametrize("shape", [(1, 3, 8), (3, 2, 8), (1, 40, 8), (3, 40, 8)])
def test_arithmetic_of_tokens(shape):
    model = Mixed().eval()
    engine = compiled(model, shape)
    assert_agrees(engine, model, shape)
    if shape[1] == 40:
        assert not left_to_torch(engine)


@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 40, 8), (5, 8)])
def test_matrices_and_layer_norm_on_few_and_many_tokens(shape):
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.LayerNorm(20), nn.Linear(20, 5)).eval()
    assert_agrees(compiled(model, shape), model, shape)


class Sentence(nn.Module):
    """The mean of words as sentence-transformers writes it, or as the zoo does, then unit length."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.linear = way, nn.Linear(8, 12)

    def forward(self, x, present):
        x = self.linear(x)
        if self.way == "expanded":
            words = present.unsqueeze(-1).expand(x.size()).float()
            mean = torch.sum(x * words, 1) / torch.clamp(words.sum(1), min=1e-9)
        else:
            words = present.unsqueeze(-1).to(x.dtype)
            mean = (words * x).sum(1) / words.sum(1).clamp(min=1e-9)
        return F.normalize(mean, dim=1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["expanded", "repeated"])
def test_sentence_vectors_are_native(way, batch):
    model, inputs = Sentence(way), (torch.randn(batch, LENGTH, 8), presence(batch))
    engine = openwork.compile(model, inputs, threads=2, tune="off")
    assert not left_to_torch(engine)
    torch.testing.assert_close(engine(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)


class OddSentence(nn.Module):
    """The flags of one sentence, the count of another: no mean of words."""

    def forward(self, x, a, b):
        return (x * a.unsqueeze(-1).float()).sum(1) / b.unsqueeze(-1).float().sum(1).clamp(min=1e-9)


def test_other_quotients_are_left_alone():
    inputs = torch.randn(1, LENGTH, 8), presence(1), torch.ones(1, LENGTH, dtype=torch.int64)
    engine = openwork.compile(OddSentence(), inputs, threads=1, tune="off")
    torch.testing.assert_close(engine(*inputs), OddSentence()(*inputs), rtol=1e-4, atol=1e-4)
