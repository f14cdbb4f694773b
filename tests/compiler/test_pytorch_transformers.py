"""PyTorch's own transformer layers are native, in both orders of axes, with every mask; so is GPT-2 as found."""

import pytest
import torch
from small_models import Calls, left_to_torch
from torch import nn
from torch.nn import functional as F

import openwork

WIDTH, HEADS, LENGTH = 24, 4, 12
CAUSAL = nn.Transformer.generate_square_subsequent_mask(LENGTH)


def padding(batch: int) -> torch.Tensor:
    """True where a word is none."""
    lengths = torch.tensor([LENGTH - 3, LENGTH, 1])[:batch]
    return torch.arange(LENGTH)[None] >= lengths[:, None]


def tokens(batch: int, batch_first: bool, length: int = LENGTH) -> torch.Tensor:
    x = torch.randn(batch, length, WIDTH)
    return x if batch_first else x.transpose(0, 1).contiguous()


def check(model: nn.Module, *inputs: torch.Tensor, others: tuple[torch.Tensor, ...] | None = None) -> openwork.Engine:
    """Nothing is left to PyTorch, and the outputs are its own, for other inputs than those of the compilation too."""
    engine = openwork.compile(model.eval(), inputs, threads=1, tune="off")
    assert left_to_torch(engine) == []
    for x in (inputs, others or tuple(torch.randn_like(i) if i.is_floating_point() else i.flip(-1) for i in inputs)):
        with torch.no_grad():
            torch.testing.assert_close(engine(*x), model(*x), rtol=1e-4, atol=1e-4, equal_nan=True)
    return engine


class SelfAttention(nn.Module):
    """nn.MultiheadAttention over one sequence."""

    def __init__(self, batch_first: bool, mask: torch.Tensor | None = None, weights: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.weights = weights
        self.register_buffer("mask", mask)

    def forward(self, x, absent=None):
        options = {"key_padding_mask": absent, "attn_mask": self.mask, "need_weights": self.weights}
        return self.attention(x, x, x, **options)[0]


@pytest.fixture(autouse=True)
def _plain():
    """PyTorch's plain path, which the engine computes; the fast one returns zeros for what is padding."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


both = pytest.mark.parametrize("batch_first", [True, False])
batches = pytest.mark.parametrize("batch", [1, 3])


@batches
@both
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("mask", [None, "causal", "truth values", "added"])
def test_multi_head_attention(mask, weights, batch_first, batch):
    masks = {"causal": CAUSAL, "truth values": CAUSAL < 0, "added": torch.randn(LENGTH, LENGTH)}
    check(SelfAttention(batch_first, masks.get(mask), weights), tokens(batch, batch_first))


@batches
@both
@pytest.mark.parametrize("mask", [None, "causal"])
def test_multi_head_attention_with_padding(mask, batch_first, batch):
    model = SelfAttention(batch_first, CAUSAL < 0 if mask else None)
    x, absent = tokens(batch, batch_first), padding(batch)
    check(model, x, absent, others=(torch.randn_like(x), torch.zeros_like(absent)))


@batches
@pytest.mark.parametrize("options", [{}, {"kdim": 10, "vdim": 14}, {"bias": False}])
def test_attention_to_another_sequence(options, batch):
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)
    model = Calls(lambda own, x, k, v: own[0](x, k, v, need_weights=False)[0], attention)
    k, v = (torch.randn(batch, 9, options.get(name, WIDTH)) for name in ("kdim", "vdim"))
    check(model, tokens(batch, True), k, v)


@batches
def test_attention_weights_that_are_returned_come_from_pytorch(batch):
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    model, x = Calls(lambda own, x: own[0](x, x, x), attention), tokens(batch, True)
    engine = openwork.compile(model, x, threads=1, tune="off")
    assert left_to_torch(engine)
    for ours, theirs in zip(engine(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@batches
@both
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(activation, norm_first, batch_first, batch):
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 40, batch_first=batch_first, norm_first=norm_first, activation=activation
    )
    check(layer, tokens(batch, batch_first))


class Encoder(nn.Module):
    """Two layers and a norm, with a causal mask or without."""

    def __init__(self, batch_first: bool, causal: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, batch_first=batch_first)
        nested = {} if batch_first else {"enable_nested_tensor": False}  # which PyTorch would warn that it does not use
        self.encoder, self.causal = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), **nested), causal
        self.register_buffer("mask", CAUSAL.clone())
        self.register_buffer("later", CAUSAL < 0)

    def forward(self, x, absent=None):
        mask = None if not self.causal else self.mask if absent is None else self.later
        return self.encoder(x, mask=mask, is_causal=self.causal, src_key_padding_mask=absent)


@batches
@both
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_encoder(padded, causal, batch_first, batch):
    x, absent = tokens(batch, batch_first), [padding(batch)] if padded else []
    check(Encoder(batch_first, causal), x, *absent, others=(torch.randn_like(x), *map(torch.zeros_like, absent)))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@batches
def test_fast_and_plain_encoders_differ_in_padding_only(batch):
    model, x, absent = Encoder(True, False).eval(), tokens(batch, True), padding(batch)
    found = check(model, x, absent)(x, absent)
    torch.backends.mha.set_fastpath_enabled(True)
    with torch.no_grad():
        fast = model(x, absent)
    assert not torch.allclose(fast, found, atol=1e-2)
    torch.testing.assert_close(fast[~absent], found[~absent], rtol=1e-4, atol=1e-4)


@batches
def test_decoder(batch):
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 40, batch_first=True)
    decoder = nn.TransformerDecoder(layer, 2)
    model = Calls(lambda own, x, y: own[0](x, y, tgt_mask=CAUSAL, tgt_is_causal=True), decoder)
    check(model, tokens(batch, True), tokens(batch, True, 9))


def test_axes_are_swapped_at_the_ends_only():
    ops = {}
    for batch_first in (True, False):
        engine = check(Encoder(batch_first, False), tokens(3, batch_first))
        steps = [row["op"] for row in engine.explain(repeats=1).rows]
        ops[batch_first] = [op for op in steps if op != "copy"]
        first, last = (next(i for i, op in enumerate(order) if op != "copy") for order in (steps, steps[::-1]))
        assert "copy" not in steps[first : len(steps) - last]
    assert ops[True] == ops[False]


SPELLED = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * torch.pow(x, 3.0)))),
    "gelu_tanh, cubed": lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))),
    "gelu": lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)),
    "silu": lambda x: x * torch.sigmoid(x),
    "silu, divided": lambda x: x / (1 + torch.exp(-x)),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
}


@pytest.mark.parametrize("name", SPELLED)
def test_activations_that_are_spelled_out_are_one(name):
    model = Calls(lambda own, x: own[1](SPELLED[name](own[0](x))), nn.Linear(WIDTH, 40), nn.Linear(40, 5))
    engine = check(model, tokens(2, True))
    assert {row["op"] for row in engine.explain(repeats=1).rows} == {"copy", "linear"}


def test_what_only_looks_like_an_activation_is_computed_as_it_is():
    model = Calls(lambda own, x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.05 * x**3))) + x * torch.sigmoid(1.702 * x))
    check(model, tokens(2, True))


class GPT(nn.Module):
    """GPT-2 as `transformers` writes it, with random weights; ids to logits."""

    def __init__(self, **options) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        sizes = {"vocab_size": 97, "n_positions": 32, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS}
        tokens = {"bos_token_id": 0, "eos_token_id": 0, "use_cache": False}
        torch.manual_seed(0)
        config = transformers.GPT2Config(**sizes, **tokens, initializer_range=0.2, **options)
        self.model = transformers.GPT2LMHeadModel(config)

    def forward(self, ids, present=None):
        return self.model(input_ids=ids, attention_mask=present).logits


@batches
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gpt2(attention, batch):
    check(GPT(attn_implementation=attention), torch.randint(0, 97, (batch, LENGTH)))


@batches
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gpt2_with_padding(attention, batch):
    present = (~padding(batch)).long()
    ids = torch.randint(0, 97, (batch, LENGTH))
    engine = check(GPT(attn_implementation=attention), ids, present, others=(ids.flip(1), torch.ones_like(present)))
    assert {"embedding", "attention", "layer_norm", "linear", "copy"} == {
        row["op"] for row in engine.explain(repeats=1).rows
    }


def test_a_causal_model_sees_only_what_came_before():
    model, ids = GPT().eval(), torch.randint(0, 97, (1, LENGTH))
    engine = openwork.compile(model, ids, threads=1, tune="off")
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % 97
    torch.testing.assert_close(engine(ids)[:, :-1], engine(changed)[:, :-1], rtol=0, atol=0)
