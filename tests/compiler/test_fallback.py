"""What has no native form runs in PyTorch between native steps: named, right, also after saving and loading."""

import pytest
import torch
import torch.nn.functional as F
from small_models import Calls, assert_agrees, compiled, left_to_torch, lively
from torch import nn

import openwork

IMAGE = (4, 8, 6)


def conv(into, out, kernel=1, **options):
    return nn.Conv2d(into, out, kernel, **options)


def between(function):
    """An operator with native steps before and after it."""
    return lambda: Calls(lambda own, x: own[1](function(own[0](x)).relu()), conv(4, 6, 3, padding=1), conv(6, 5))


CASES = {
    "softmax of columns": (between(lambda x: x.softmax(3)), ["aten.softmax.int"]),
    "sine": (between(torch.sin), ["aten.sin.default"]),
    "sums": (between(lambda x: x.cumsum(1)), ["aten.cumsum.default"]),
    "sine of cosine": (between(lambda x: x.cos().sin()), ["aten.cos.default", "aten.sin.default"]),
    "flip": (between(lambda x: x.flip(3)), ["aten.flip.default"]),
    "infinite mask": (
        between(lambda x: x.masked_fill(x < x.median(3, True)[0], float("-inf")).softmax(3)),
        ["aten.median.dim", "getitem", "aten.lt.Tensor", "aten.masked_fill.Scalar", "aten.softmax.int"],
    ),
    "unfolded": (
        lambda: nn.Sequential(conv(4, 3), nn.Unfold(2), nn.Fold((8, 6), 2), conv(3, 2), nn.ReLU()),
        ["aten.im2col.default", "aten.col2im.default"],
    ),
    "conv 1-d": (
        lambda: Calls(lambda own, x: own[1](own[0](x).flatten(2)).relu(), conv(4, 3), nn.Conv1d(3, 2, 3)),
        ["aten.view.default", "aten.conv1d.default"],
    ),
    "several results": (
        lambda: Calls(lambda own, x: torch.stack([t.relu() for t in own[0](x).unbind(1)], 1) + x, conv(4, 4)),
        ["aten.unbind.int", "getitem", "getitem", "getitem", "getitem"],
    ),
    "several results, returned": (lambda: Calls(lambda own, x: own[0](x).unbind(1), conv(4, 4)), ["aten.unbind.int"]),
    "max with indices": (
        lambda: Calls(lambda own, x: F.max_pool2d(own[0](x), 2, return_indices=True)[0].relu(), conv(4, 4)),
        ["aten.max_pool2d_with_indices.default", "getitem"],
    ),
    "integer index": (
        lambda: Calls(lambda own, x: own[1](own[0](x)[:, 1]), conv(4, 3), nn.Linear(6, 2)),
        ["aten.select.int"],
    ),
    "rolled": (lambda: Calls(lambda own, x: own[0](x.roll(1, 3)), conv(4, 3)), ["aten.roll.default"]),
    "linear over images": (
        lambda: Calls(lambda own, x: own[0](own[1](x)), nn.Linear(6, 5), conv(4, 3)),
        ["aten.linear.default"],
    ),
    "a constant": (
        lambda: Calls(lambda own, x: own[0](x) @ own[1].weight, conv(4, 3), nn.Linear(5, 6)),
        ["aten.matmul.default"],
    ),
    "same value twice": (
        lambda: Calls(lambda own, x: (lambda y: (y.sin() + own[1](y), y.cos()))(own[0](x)), conv(4, 3), conv(3, 3)),
        ["aten.sin.default", "aten.cos.default"],
    ),
    "first and last": (
        lambda: Calls(lambda own, x: own[0](x.sin()).cos(), conv(4, 3)),
        ["aten.sin.default", "aten.cos.default"],
    ),
    "only PyTorch": (lambda: Calls(lambda own, x: x.sin()), ["aten.sin.default"]),
    "no axes": (
        lambda: Calls(lambda own, x: own[0](x).sum().relu(), conv(4, 3)),
        ["aten.sum.default", "aten.relu.default"],
    ),
    "attention": (
        lambda: Calls(
            lambda own, x: own[1](x.flatten(2), x.flatten(2), x.flatten(2))[0],
            conv(4, 3),
            nn.MultiheadAttention(48, 4, batch_first=True),
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pytorch_runs_it_between_native_steps(name, tmp_path):
    build, operators = CASES[name]
    model = lively(build())
    shape = (2, *IMAGE)
    engine = compiled(model, shape)
    named = left_to_torch(engine)
    assert named[: len(operators)] == operators if operators else named
    assert_agrees(engine, model, shape)
    engine.save(tmp_path / "a.openwork")
    loaded = openwork.load(tmp_path / "a.openwork", threads=1)
    assert left_to_torch(loaded) == named
    assert_agrees(loaded, model, shape)


def test_explain_names_the_operator_and_the_reason():
    text = str(compiled(CASES["sine"][0](), (1, *IMAGE)).explain(repeats=1))
    assert "left to PyTorch: aten.sin.default has no native form here" in text


def test_results_are_not_views_of_the_input_or_of_weights():
    model = Calls(lambda own, x: (x.unsqueeze(0), own[0].weight.view(-1) * 1, own[0].weight.unsqueeze(0)), conv(2, 2))
    engine = compiled(model, (1, 2, 3, 3))
    x = torch.randn(1, 2, 3, 3)
    before = x.clone()
    for result in engine(x):
        result.zero_()
    assert torch.equal(x, before)
    assert_agrees(engine, model, (1, 2, 3, 3))


def test_a_failing_operator_is_an_error_that_names_it():
    engine = compiled(Calls(lambda own, x: own[0](x).view(1, 2, 3).sin(), conv(2, 2)), (1, 2, 1, 3))
    call = engine.artifact.program.segments[-1].calls[0]
    call.args[1][0] = 7  # the shape of the view
    with pytest.raises(
        openwork.errors.EngineError, match=r"aten\.view\.default \(view\) failed in PyTorch: shape '\[7, 2, 3\]'"
    ):
        engine(torch.zeros(1, 2, 1, 3))
