"""Layers of recurrent cells against PyTorch's, on every instruction set, split among parts in every way."""

import native_steps as steps
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.compiler.recurrent import Cells

every_isa = pytest.mark.parametrize("isa", steps.FLOATS)
seeds = st.integers(0, 2**32 - 1)
MODULES = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM, "tanh": torch.nn.RNN, "relu": torch.nn.RNN}


def module(case: steps.Case, matrix: np.ndarray) -> torch.nn.Module:
    """PyTorch's layer with the case's recurrent weights, whose input is the projection itself."""
    a = case.arguments
    cells = Cells(a["cell"], a["hidden"], a["directions"])
    more = {"nonlinearity": a["cell"]} if a["cell"] in ("tanh", "relu") else {}
    layer = MODULES[a["cell"]](cells.gated, a["hidden"], bidirectional=a["directions"] == 2, **more)
    identity = torch.eye(cells.gated)[torch.from_numpy(cells.places())].chunk(a["directions"])
    recurrent = torch.from_numpy(matrix).chunk(a["directions"])
    bias = torch.from_numpy(a["rest"][cells.places()]).chunk(a["directions"])
    for d, end in enumerate(("l0", "l0_reverse")[: a["directions"]]):
        for name, value in (("weight_ih", identity), ("weight_hh", recurrent), ("bias_hh", bias)):
            getattr(layer, f"{name}_{end}").data[:] = value[d]
        getattr(layer, f"bias_ih_{end}").data[:] = 0
    return layer


def wanted(case, matrix, values, state="given"):
    """Outputs and final states by PyTorch."""
    layer = module(case, matrix)
    tensors = {name: torch.from_numpy(v.copy()) for name, v in values.items() if name != "work"}
    lstm = case.arguments["cell"] == "lstm"
    initial = (tensors["h0"], tensors["c0"]) if lstm else tensors["h0"]
    with torch.no_grad():
        y, final = layer(tensors["x"], None if state == "zero" else initial)
    return {"y": y, **dict(zip(("hn", "cn"), final if lstm else (final,), strict=False))}


def found(case, run, names):
    """Values of a run by name."""
    a = case.arguments
    shapes = {"y": (a["steps"], a["batch"], a["directions"] * a["hidden"])}
    result = {}
    for name in names:
        place = a[name]
        at = place["base"] + (len(case.arena) if place["buffer"] == 0 else 0)
        shape = shapes.get(name, (a["directions"], a["batch"], a["hidden"]))
        result[name] = torch.from_numpy(run[at : at + int(np.prod(shape))].reshape(shape).copy())
    return result


@every_isa
@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    kind=st.sampled_from(list(MODULES)),
    hidden=st.integers(1, 70),
    directions=st.integers(1, 2),
    time=st.integers(1, 5),
    batch=st.integers(1, 8),
    width=st.sampled_from([16, 32, 64]),
    samples=st.integers(1, 6),
    parts=st.integers(1, 6),
    density=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    state=st.sampled_from(["given", "constant", "zero"]),
    external=st.booleans(),
    threads=st.integers(1, 3),
)
def test_a_layer_is_pytorchs(isa, threads, **options):
    case, matrix, values = steps.recurrent(**options)
    expected = wanted(case, matrix, values, options["state"])
    run = case.run(isa, threads)
    for name, value in found(case, run, expected).items():
        torch.testing.assert_close(value, expected[name], rtol=2e-5, atol=2e-5)
