"""GRU and LSTM: published size, streams fed in pieces, directions and layers, the equations by hand."""

import pytest
import torch

from openwork import models
from openwork.errors import UsageError

NAMES = ("gru_timit", "lstm_timit")
SMALL = {"features": 5, "hidden": 8}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def test_the_gru_has_the_9_6_million_weights_that_rtmobile_prunes():
    weights = [p.numel() for name, p in models.resolve("gru_timit").named_parameters() if "rnn.weight" in name]
    assert sum(weights) == 3 * 1024 * (39 + 1024) + 6 * 1024 * 1024 == 9_556_992


@pytest.mark.parametrize("pieces", [[1] * 6, [2, 4], [5, 1]])
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_in_pieces_gives_what_the_whole_gives(name, pieces):
    model = models.resolve(name, **SMALL, layers=3)
    x, *states = models.example_inputs(name, 2, length=6, **SMALL, layers=3)
    whole, *last = model(x, *states)
    found = []
    for part in x.split(pieces, dim=1):
        y, *states = model(part, *states)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, dim=1), whole)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(states, last, strict=True))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_layers_and_directions(name, layers, bidirectional):
    options = {**SMALL, "layers": layers, "bidirectional": bidirectional}
    directions = 1 + bidirectional
    inputs = models.example_inputs(name, 2, length=4, **options)
    for classes, width in ((7, 7), (None, 8 * directions)):
        y, *states = models.resolve(name, classes=classes, **options)(*inputs)
        assert y.shape == (2, 4, width)
        assert [s.shape for s in states] == [s.shape for s in inputs[1:]] == [(2, layers * directions, 8)] * len(states)


@pytest.mark.parametrize("name", NAMES)
def test_the_backward_direction_reads_from_the_end(name):
    options = {**SMALL, "layers": 1, "bidirectional": True}
    model = models.resolve(name, classes=None, **options)
    x, *states = models.example_inputs(name, 1, length=4, **options)
    changed = x.clone()
    changed[:, -1] += 1
    forward, backward = (model(changed, *states)[0] - model(x, *states)[0]).split(8, dim=-1)
    assert not forward[:, :3].any() and backward[:, 0].any()


def gates(cell, x, h, count):
    """What inputs and state give each gate, [batch, hidden] each."""
    of_x = x @ cell.weight_ih_l0.T + cell.bias_ih_l0
    of_h = h @ cell.weight_hh_l0.T + cell.bias_hh_l0
    return of_x.chunk(count, dim=1), of_h.chunk(count, dim=1)


def gru_step(cell, x, h):
    (rx, zx, nx), (rh, zh, nh) = gates(cell, x, h, 3)
    r, z = (rx + rh).sigmoid(), (zx + zh).sigmoid()
    return (1 - z) * (nx + r * nh).tanh() + z * h


def lstm_step(cell, x, h, c):
    (ix, fx, gx, ox), (ih, fh, gh, oh) = gates(cell, x, h, 4)
    c = (fx + fh).sigmoid() * c + (ix + ih).sigmoid() * (gx + gh).tanh()
    return (ox + oh).sigmoid() * c.tanh(), c


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_equations(name):
    model = models.resolve(name, classes=None, layers=1, **SMALL)
    x, *states = models.example_inputs(name, 3, layers=1, **SMALL)
    y, *found = model(x, *states)
    step = gru_step(model.rnn, x[:, 0], states[0][:, 0]) if len(states) == 1 else None
    wanted = (step,) if step is not None else lstm_step(model.rnn, x[:, 0], *(s[:, 0] for s in states))
    torch.testing.assert_close(y[:, 0], wanted[0])
    for state, value in zip(found, wanted, strict=True):
        torch.testing.assert_close(state[:, 0], value)


@pytest.mark.parametrize("name", NAMES)
def test_no_frames_are_refused(name):
    with pytest.raises(UsageError, match="length=0 must be at least 1, one frame"):
        models.example_inputs(name, length=0)


@pytest.mark.parametrize("name", NAMES)
def test_states_of_several_streams_are_contiguous_as_cudnn_needs_them(name):
    model, seen = models.resolve(name, **SMALL, layers=3), []
    model.rnn.register_forward_pre_hook(lambda _, args: seen.extend(args[1] if name == "lstm_timit" else args[1:]))
    model(*models.example_inputs(name, 2, length=4, **SMALL, layers=3))
    assert len(seen) == (2 if name == "lstm_timit" else 1) and all(state.is_contiguous() for state in seen)
