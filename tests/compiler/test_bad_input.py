"""Models and inputs that cannot be compiled get an error of their own, in one line, and stay as they were."""

import pytest
import torch
from small_models import Calls, compiled
from torch import nn

import openwork
from openwork.errors import CaptureError, CompileError, EngineError, ModelError, UsageError

X = torch.zeros(1, 2, 4, 4)


def broken_conv(change):
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    with torch.no_grad():
        change(model)
    return model


def poke(tensor, value):
    tensor.view(-1)[0] = value


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += 1
        return x + self.seen


MODELS = [
    (CaptureError, r"Branching cannot be captured by torch\.export: .*control flow must move out", Branching),
    (CaptureError, "changes its own buffer seen", Counting),
    (CaptureError, "writes into its input", lambda: Calls(lambda own, x: x.relu_())),
    (CaptureError, "returns something that is not a tensor", lambda: Calls(lambda own, x: (x.relu(), None))),
    (CaptureError, "returns its own constant", lambda: Calls(lambda own, x: own[0].weight, nn.Linear(2, 2))),
    (CaptureError, "returns nothing", lambda: Calls(lambda own, x: ())),
    (CaptureError, "Conv2d cannot be captured", lambda: nn.Conv2d(3, 2, 1)),
    (
        ModelError,
        r"0\.weight holds 1 values that are NaN or infinite",
        lambda: broken_conv(lambda m: poke(m[0].weight, float("nan"))),
    ),
    (ModelError, r"0\.bias holds 1 values", lambda: broken_conv(lambda m: poke(m[0].bias, float("-inf")))),
    (ModelError, r"1\.running_var holds 1 values", lambda: broken_conv(lambda m: poke(m[1].running_var, float("inf")))),
    (
        ModelError,
        r"1\.weight has shape \(0, 2\): a layer with no weights",
        lambda: nn.Sequential(nn.Flatten(), empty_linear()),
    ),
    (UsageError, "model is a str, not a torch.nn.Module", lambda: "resnet"),
]


def empty_linear():
    layer = nn.Linear(2, 1)
    layer.weight = nn.Parameter(torch.zeros(0, 2))
    return layer


@pytest.mark.parametrize(("kind", "message", "build"), MODELS)
def test_a_model_that_cannot_be_compiled(kind, message, build):
    with pytest.raises(kind, match=message) as caught:
        openwork.compile(build(), X, threads=1, tune="off")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message", "inputs"),
    [
        (UsageError, "example_inputs are empty", ()),
        (UsageError, "example_inputs are empty", torch.zeros(0, 2, 4, 4)),
        (UsageError, "example_inputs are empty", (torch.zeros(1, 2, 0, 4),)),
        (UsageError, "hold a ndarray", (X.numpy(),)),
        (UsageError, "hold a NoneType", None),
        (CaptureError, "input input has type float64, the engine takes float32, int64, ", X.double()),
        (CaptureError, "has type bfloat16", X.bfloat16()),
        (CaptureError, "has type complex64", X.to(torch.complex64)),
    ],
)
def test_example_inputs_that_cannot_be_used(kind, message, inputs):
    with pytest.raises(kind, match=message):
        openwork.compile(nn.ReLU(), inputs, threads=1, tune="off")


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (UsageError, "dtype='float16' is not available", {"dtype": "float16"}),
        (UsageError, "tune='best' is not one of", {"tune": "best"}),
        (EngineError, r"threads=0 is not a whole number in 1\.\.1024", {"threads": 0}),
        (EngineError, "threads='2' is not a whole number", {"threads": "2"}),
        (EngineError, "threads=1025", {"threads": 1025}),
        (EngineError, "isa='sse9' does not run on this machine; available: auto, ", {"isa": "sse9"}),
        (UsageError, "an artifact cannot hold this: type cannot be stored", {"provenance": {"model": object}}),
        (UsageError, "an artifact cannot hold this: .*float values", {"provenance": {"loss": float("nan")}}),
    ],
)
def test_options_that_are_wrong(kind, message, options):
    with pytest.raises(kind, match=message):
        openwork.compile(nn.Conv2d(2, 2, 1), X, **{"threads": 1, "tune": "off", **options})


def test_an_engine_that_differs_from_the_model_is_refused(monkeypatch):
    from openwork.engine.engine import Engine

    run = Engine._run
    for wrong in (lambda y: y + 0.01, lambda y: y * float("nan"), lambda y: y.clip(max=0), lambda y: y[:, :1]):
        monkeypatch.setattr(
            Engine, "_run", lambda self, arrays, level, wrong=wrong: [wrong(y) for y in run(self, arrays, level)]
        )
        with pytest.raises(CompileError, match="differ from PyTorch"):
            compiled(nn.Conv2d(2, 3, 1), (1, 2, 4, 4))


def test_outputs_that_are_infinite_or_nan_are_no_difference():
    model = Calls(lambda own, x: own[0](x).log(), nn.Conv2d(2, 2, 1))
    engine = compiled(model, (1, 2, 4, 4))
    assert engine.provenance["max_relative_error"] < 1e-4


def test_compiling_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    model.train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compiled(model, (2, 2, 4, 4))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
