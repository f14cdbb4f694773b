"""Steps over tokens against PyTorch: attention with every kind of mask, layer norm, embeddings, constants."""

import math

import native_steps as steps
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps import quads
from native_steps.strategies import byte_bounds

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FLOATS)
many = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def planes(arena: np.ndarray, case: steps.Case, name: str, batch: int, length: int, stride: int) -> torch.Tensor:
    """[batch, channels, length] of the planes that a case's argument names."""
    offsets = case.arguments[name]
    return torch.tensor(np.array([[arena[o + n * stride :][:length] for o in offsets] for n in range(batch)]))


def attended(case: steps.Case, arena: np.ndarray) -> torch.Tensor:
    """What PyTorch computes from the arena that an attention step works on, [batch, heads, queries, channels]."""
    a = case.arguments
    q = planes(arena, case, "q", a["batch"], a["queries"], a["q_stride"])
    k, v = (planes(arena, case, name, a["batch"], a["keys"], a["k_stride"]) for name in "kv")
    q, k, v = (x.unflatten(1, (a["heads"], -1)).transpose(2, 3) for x in (q, k, v))
    mask = None
    if "flags" in a:
        mask = torch.tensor(case.buffers[0].view(np.int32)).reshape(a["batch"], 1, 1, a["keys"]) != 0
    if "bias" in a:
        bias = torch.tensor(a["bias"]).reshape(1, a["bias_heads"], a["keys"], -1)
        mask = bias[..., : a["queries"]].transpose(2, 3)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=a["scale"])


def result(case: steps.Case, found: np.ndarray) -> torch.Tensor:
    a = case.arguments
    out = planes(found, case, "out", a["batch"], a["queries"], a["q_stride"])
    return out.unflatten(1, (a["heads"], -1)).transpose(2, 3)


@every_isa
@many
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    channels=st.integers(1, 20),
    queries=st.integers(1, 70),
    keys=st.integers(1, 80),
    mask=st.sampled_from(["none", "flags", "bias", "bias of heads"]),
    scale=st.sampled_from([0.1, 1.0, 9.0]),
)
def test_attention_is_pytorchs_and_writes_its_queries_only(isa, mask, **options):
    heads = options["heads"]
    case = steps.attention(
        flags=mask == "flags", bias_heads={"bias": 1, "bias of heads": heads}.get(mask, 0), **options
    )
    found = case.run(isa)
    # rounding of a score, which grows with the score, is relative in what it is the exponent of
    tolerance = 1e-5 * (2 + options["scale"] * options["channels"] ** 0.5)
    torch.testing.assert_close(result(case, found), attended(case, case.arena), rtol=tolerance, atol=tolerance)
    untouched = np.ones(len(case.arena), bool)
    for o in case.arguments["out"]:
        for n in range(options["batch"]):
            untouched[o + n * case.arguments["q_stride"] :][: options["queries"]] = False
    np.testing.assert_array_equal(found[: len(case.arena)][untouched], case.arena[untouched])


@every_isa
def test_where_all_keys_are_masked_the_output_is_zero(isa):
    case = steps.attention(flags=True)
    case.buffers[0].view(np.int32)[: case.arguments["keys"]] = 0
    found = result(case, case.run(isa))
    assert not found[0].any() and found[1].any()
    torch.testing.assert_close(found, attended(case, case.arena), rtol=2e-5, atol=2e-5)


@every_isa
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_nan_and_infinity_spread_as_in_pytorch(isa, where, bad):
    case = steps.attention(queries=5, keys=7)
    arena = case.arena.copy()
    arena[case.arguments[where][1] + 2] = bad
    found, wanted = result(case, case.run(isa, arena=arena)), attended(case, arena)
    assert wanted.isnan().any() or wanted.isinf().any()
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5, equal_nan=True)


@every_isa
@many
@given(seed=seeds, channels=st.integers(1, 40), h=st.integers(1, 3), w=st.integers(1, 40), batch=st.integers(1, 3))
def test_layer_norm_is_pytorchs_and_keeps_padding_zero(isa, seed, channels, h, w, batch):
    grid = (batch, h * (w + 1), w + 1, h, w)
    case = steps.layer_norm(seed, channels, grid)
    found, flags = case.run(isa), steps.inside(grid)
    x = torch.tensor(np.array([case.arena[o : o + len(flags)][flags] for o in case.arguments["x"]])).T
    y = np.array([found[o : o + len(flags)] for o in case.arguments["y"]])
    weight, bias = (torch.tensor(case.arguments[k]) for k in ("weight", "bias"))
    wanted = torch.nn.functional.layer_norm(x, (channels,), weight, bias, 1e-5)
    tolerance = 2e-3 if channels < 4 else 2e-4  # a variance near zero magnifies rounding, PyTorch's too
    torch.testing.assert_close(torch.tensor(y[:, flags]).T, wanted, rtol=tolerance, atol=tolerance)
    assert not y[:, ~flags].any()


@every_isa
@many
@given(
    seed=seeds,
    channels=st.integers(1, 13),
    w=st.integers(1, 40),
    bounds=byte_bounds,
    inverse=st.sampled_from([1.0, 0.37, 40.0]),
    floats=st.booleans(),
    token=st.booleans(),
)
def test_layer_norm_rounds_what_it_gives(isa, seed, channels, w, bounds, inverse, floats, token):
    grid = (2, w + 3, w + 1, 1, w)
    plain = steps.layer_norm(seed, channels, grid)
    reach = len(steps.inside(grid))
    y = plain.run(isa)
    out = (2 * channels + np.arange(-(-channels // 4))) * reach
    x = quads.taken(y, plain.arguments["y"], reach)
    scales = len(plain.arena) - reach
    if token:  # a scale for each, by its largest value
        bounds = (-127, 127)
        inverse, scale = quads.token_scales(x, 127)
    rounding = {"token": scales} if token else {"inverse": inverse}
    numbers = {"quads": out.astype(np.int32), **rounding, "lo": bounds[0], "hi": bounds[1]}
    both = plain.changed(**numbers, **({} if floats else {"y": ...}))
    found = both.run(isa)
    np.testing.assert_array_equal(found[: out[0]], (y if floats else plain.arena)[: out[0]])
    wanted = quads.packed(quads.rounded(x * np.float32(inverse), *bounds) * steps.inside(grid))
    np.testing.assert_array_equal(quads.taken(found.view(np.int32), out, reach), wanted)
    if token:
        np.testing.assert_array_equal(found[scales:][:reach], scale * steps.inside(grid))


@every_isa
@many
@given(seed=seeds, batch=st.integers(1, 3), length=st.integers(1, 50), channels=st.integers(1, 9), added=st.booleans())
def test_embedding_is_exact(isa, seed, batch, length, channels, added):
    case = steps.embedding(seed, batch, length, channels, added)
    a = case.arguments
    ids = case.buffers[0].view(np.int32).reshape(batch, length)
    wanted = a["table"].reshape(-1, channels)[ids]
    if added:
        wanted = wanted + a["added"].reshape(length, channels)
    found = planes(case.run(isa), case, "out", batch, length, a["stride"])
    np.testing.assert_array_equal(found.transpose(1, 2).numpy(), wanted)


@pytest.mark.parametrize("token", [-1, 11, 2**31 - 1, -(2**31)])
def test_a_token_that_is_not_in_the_vocabulary_is_an_error(token):
    case = steps.embedding()
    case.buffers[0].view(np.int32)[20] = token
    with pytest.raises(IndexError, match=rf"token {token} at position 1 is not in the vocabulary of 0\.\.10"):
        case.run("auto")


@every_isa
def test_a_constant_is_there_before_the_first_run(isa):
    case = steps.constant()
    program = _native.Program(len(case.arena), [], 1, isa)
    case.add(program)
    found = planes(program.arena(), case, "out", 2, 6, 7)
    np.testing.assert_array_equal(found.numpy(), np.stack([case.arguments["value"].reshape(3, 6)] * 2))


@every_isa
def test_a_constant_of_several_rows_leaves_the_padding_between_them(isa):
    case = steps.constant(rows=4)
    program = _native.Program(len(case.arena), [], 1, isa)
    case.add(program)
    found = program.arena()[: 3 * 2 * 4 * 7].reshape(3, 2, 4, 7)
    wanted = np.zeros((3, 2, 4, 7), np.float32)
    wanted[..., :6] = case.arguments["value"].reshape(3, 1, 4, 6)
    np.testing.assert_array_equal(found, wanted)


@every_isa
@many
@given(seed=seeds, batch=st.integers(1, 3), length=st.integers(1, 600), channels=st.integers(1, 9))
def test_word_mean(isa, seed, batch, length, channels):
    case = steps.word_mean(seed, batch, length, channels)
    a = case.arguments
    x = planes(case.arena, case, "x", batch, length, a["stride"])
    flags = torch.tensor(case.buffers[0].view(np.int32)).reshape(batch, 1, length).float()
    wanted = (x * flags).sum(2) / flags.sum(2).clamp(min=a["least"])
    found = case.run(isa)[a["y"] :][: batch * a["y_stride"]].reshape(batch, -1)[:, :channels]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_the_mean_of_no_words_is_zero():
    case = steps.word_mean()
    case.buffers[0][:] = 0
    a = case.arguments
    assert not case.run("auto")[a["y"] :][:5].any()


@every_isa
@many
@given(seed=seeds, batch=st.integers(1, 3), features=st.integers(1, 300), least=st.sampled_from([1e-12, 100.0]))
def test_unit(isa, seed, batch, features, least):
    case = steps.unit(seed, batch, features, least)
    a = case.arguments
    x = torch.tensor(case.arena[: a["y"]]).reshape(batch, -1)[:, :features]
    found = case.run(isa)[a["y"] :].reshape(batch, -1)[:, :features]
    np.testing.assert_allclose(found, torch.nn.functional.normalize(x, dim=1, eps=least).numpy(), rtol=1e-5)
