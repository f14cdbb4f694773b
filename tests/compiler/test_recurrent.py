"""GRU, LSTM and RNN layers and cells against PyTorch: every form of them, streaming with state, sparse weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Calls, assert_agrees, assert_agrees_on, compiled, inputs, left_to_torch
from torch import nn

import openwork

LAYERS = {
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
CELLS = {
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
    "tanh": nn.RNNCell,
    "relu": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}


def outputs_only(layers, x):
    return layers[0](x)[0]


def state_only(layers, x):
    return layers[0](x)[1]


def gru_with_state(layers, x, h):
    return layers[0](x, h)


def lstm_with_state(layers, x, h, c):
    y, (h, c) = layers[0](x, (h, c))
    return y, h, c


def cut(module: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """The module with a random share of its weights, and some rows and columns of the recurrent ones, set to zero."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if "weight" in name:
            weight.data[torch.rand(weight.shape, generator=random) >= density] = 0
        if "weight_hh" in name and density < 1:
            weight.data[torch.rand(len(weight), generator=random) < 0.3] = 0
            weight.data[:, torch.rand(weight.shape[1], generator=random) < 0.3] = 0
    return module


def native(model, *shapes, **options):
    engine = compiled(model, *shapes, **options)
    assert left_to_torch(engine) == []
    return engine


@pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first", "batch"),
    [(1, False, False, 1), (1, True, True, 3), (2, False, True, 1), (2, True, False, 3)],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_without_an_initial_state(kind, layers, bidirectional, batch_first, batch):
    torch.manual_seed(0)
    layer = LAYERS[kind](5, 21, layers, bidirectional=bidirectional, batch_first=batch_first).eval()
    shape = (batch, 6, 5) if batch_first else (6, batch, 5)
    engine = native(layer, shape, threads=2)
    with torch.no_grad():
        y, state = layer(*inputs(shape))
    found = engine(*inputs(shape))
    for ours, theirs in zip(found, (y, *(state if kind == "lstm" else (state,))), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(list(LAYERS)),
    features=st.integers(1, 20),
    hidden=st.integers(1, 70),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    batch=st.integers(1, 7),
    time=st.integers(1, 9),
    density=st.sampled_from([0.02, 0.3, 1.0]),
    threads=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_any_layer_with_its_initial_state(
    kind, features, hidden, layers, bidirectional, batch_first, bias, batch, time, density, threads, seed
):
    torch.manual_seed(seed)
    layer = LAYERS[kind](features, hidden, layers, bias=bias, bidirectional=bidirectional, batch_first=batch_first)
    model = Calls(lstm_with_state if kind == "lstm" else gru_with_state, cut(layer, density, seed)).eval()
    x = (batch, time, features) if batch_first else (time, batch, features)
    state = (layers * (1 + bidirectional), batch, hidden)
    shapes = (x, state, state) if kind == "lstm" else (x, state)
    assert_agrees(native(model, *shapes, threads=threads), model, *shapes, names=("y", "h", "c"))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell(kind, bias, batch):
    torch.manual_seed(0)
    cell = CELLS[kind](9, 33, bias=bias)
    state = (batch, 33)
    if kind == "lstm":
        model = Calls(lambda layers, x, h, c: layers[0](x, (h, c)), cell).eval()
        shapes = ((batch, 9), state, state)
    else:
        model = Calls(lambda layers, x, h: layers[0](x, h), cell).eval()
        shapes = ((batch, 9), state)
    assert_agrees(native(model, *shapes), model, *shapes)


@pytest.mark.parametrize("function", [outputs_only, state_only])
@pytest.mark.parametrize("shape", [(4, 2, 6), (4, 6)], ids=["batch", "one sequence"])
def test_results_that_nobody_reads_are_not_asked_for(function, shape):
    torch.manual_seed(0)
    model = Calls(function, nn.GRU(6, 20, 2)).eval()
    assert_agrees(native(model, shape), model, shape)


def test_states_in_either_order_and_both_at_once():
    torch.manual_seed(0)

    def function(layers, x, states):
        y, h = layers[0](x, states.transpose(0, 1))
        return layers[1](y[:, -1:]), h.transpose(0, 1), h, h.permute(1, 0, 2) + 1

    model = Calls(function, nn.GRU(6, 20, 2, batch_first=True), nn.Linear(20, 4)).eval()
    for batch in (1, 3):
        shapes = ((batch, 5, 6), (batch, 2, 20))
        assert_agrees(compiled(model, *shapes), model, *shapes)


def test_layers_between_other_operators():
    torch.manual_seed(0)

    def function(layers, x):
        y, _ = layers[1](layers[0](x).relu())
        y, h = layers[2](y.transpose(0, 1))
        return layers[3](y), h

    layers = nn.Linear(6, 12), nn.LSTM(12, 17, batch_first=True), nn.GRU(17, 9), nn.Linear(9, 5)
    model = Calls(function, *layers).eval()
    for batch, time in ((1, 1), (1, 12), (3, 5)):
        assert_agrees(native(model, (batch, time, 6)), model, (batch, time, 6))


class Learned(nn.Module):
    """A GRU whose initial state is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 20, 2)
        self.start = nn.Parameter(torch.randn(2, 1, 20))

    def forward(self, x):
        return self.rnn(x, self.start.expand(-1, x.shape[1], -1))[0]


def test_a_learned_initial_state():
    torch.manual_seed(0)
    model = Learned().eval()
    assert_agrees(native(model, (4, 3, 6)), model, (4, 3, 6))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_stream_of_single_steps_equals_one_call_of_the_whole(kind):
    torch.manual_seed(0)
    states = 2 if kind == "lstm" else 1
    model = Calls(lstm_with_state if kind == "lstm" else gru_with_state, cut(LAYERS[kind](6, 40, 2), 0.3)).eval()
    (x,) = inputs((7, 1, 6))
    state = inputs(*[(2, 1, 40)] * states)
    whole = native(model, (7, 1, 6), *[(2, 1, 40)] * states)
    single = native(model, (1, 1, 6), *[(2, 1, 40)] * states)
    wanted, *last = whole(x, *state)
    for t in range(len(x)):
        y, *state = single(x[t : t + 1], *state)
        torch.testing.assert_close(y[0], wanted[t], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(state, last, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_spread_as_in_pytorch(kind, odd):
    torch.manual_seed(0)
    model = Calls(outputs_only, LAYERS[kind](6, 20)).eval()
    (x,) = inputs((5, 2, 6))
    engine = native(model, x.shape)
    x[2, 1, 3] = odd
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(engine(x), wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert torch.isfinite(wanted[:2]).all() and (odd == odd or wanted[2:, 1].isnan().all())


def test_tuning_finds_the_zeros_and_tells_and_the_artifact_keeps_it(tmp_path):
    torch.manual_seed(0)
    layer = nn.GRU(16, 256, batch_first=True)
    mask = (torch.rand(12, 256) < 0.1).repeat_interleave(64, dim=0)  # strips of 64 rows with the same columns
    layer.weight_hh_l0.data *= mask
    model = Calls(outputs_only, layer).eval()
    engine = openwork.compile(model, inputs((1, 20, 16)), threads=2)
    assert_agrees(engine, model, (1, 20, 16))
    row = next(row for row in engine.explain(repeats=3).rows if row["op"] == "recurrent")
    assert row["why"].startswith("sparse won") and row["kernel"].startswith("gru_f32_")
    assert row["sparsity"] == pytest.approx(1 - float(mask.float().mean()), abs=1e-3)
    assert any(t["dense"] for t in row["tried"]) and {t["row_chunks"] for t in row["tried"]} >= {1, 2}
    engine.save(tmp_path / "gru.openwork")
    (x,) = inputs((1, 20, 16))
    assert torch.equal(openwork.load(tmp_path / "gru.openwork", threads=2)(x), engine(x))


def test_any_batch_runs_in_pieces():
    torch.manual_seed(0)
    model = Calls(outputs_only, nn.GRU(6, 20, batch_first=True)).eval()
    engine = native(model, (2, 4, 6))
    assert_agrees_on(engine, model, inputs((5, 4, 6)))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projected_states_are_left_to_pytorch():
    torch.manual_seed(0)
    model = Calls(outputs_only, nn.LSTM(6, 20, proj_size=8)).eval()
    engine = compiled(model, (4, 2, 6))
    assert left_to_torch(engine)[0] == "aten.lstm.input"
    assert_agrees(engine, model, (4, 2, 6))
