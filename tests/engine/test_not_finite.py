"""NaN and infinity pass through every native operator as they do in PyTorch, and leave nothing behind."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import Calls, compiled, left_to_torch, winograd_everywhere
from torch import nn

import openwork
from openwork.compiler import operators
from openwork.compiler.capture import capture
from openwork.compiler.optimize import optimize
from openwork.engine import _native
from openwork.engine.engine import Engine
from openwork.quantization.rows import round_rows

IMAGE, ROWS, WORDS = (2, 8, 7, 5), (3, 12), (2, 6, 12)


def norm():
    layer = nn.BatchNorm2d(8)
    layer.running_mean.uniform_(-1, 1)
    layer.running_var.uniform_(0.5, 2)
    return layer


class Attends(nn.Module):
    def __init__(self, causal):
        super().__init__()
        self.causal = causal
        self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        heads = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(*heads, is_causal=self.causal).transpose(1, 2).flatten(2)


def mean_of_words(own, x, flags):
    words = flags.unsqueeze(-1).to(x.dtype)
    return (own[0](x) * words).sum(1) / words.sum(1).clamp(min=1e-9)


def reads_rounded_rows():
    layer = nn.Linear(12, 9)
    layer.weight.data = torch.randint(-127, 128, (9, 12)) / 64
    return Calls(lambda own, x: own[0](round_rows(x, 127)), layer)


CASES = {
    "conv 3x3": (lambda: nn.Conv2d(8, 6, 3, padding=1), IMAGE),
    "conv 1x1": (lambda: nn.Conv2d(8, 16, 1), IMAGE),
    "conv, strided": (lambda: nn.Conv2d(8, 9, 3, 2, 1), IMAGE),
    "conv, grouped": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4), IMAGE),
    "conv, depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), IMAGE),
    "depthwise step": (
        lambda: nn.Sequential(nn.MaxPool2d(1), nn.Conv2d(8, 16, 3, 2, 1, groups=8), nn.ReLU6()),
        IMAGE,
    ),
    "depthwise step, zeros on one side": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(8, 8, 5, groups=8), nn.SiLU()),
        IMAGE,
    ),
    "conv, zeros on one side": (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 9, 3, 2)), IMAGE),
    "conv, dilated": (lambda: nn.Conv2d(8, 4, 3, padding=2, dilation=2), IMAGE),
    "conv + relu": (lambda: nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()), IMAGE),
    "conv + add + relu6": (
        lambda: Calls(lambda own, x: F.relu6(own[0](x) + x), nn.Conv2d(8, 8, 3, padding=1)),
        IMAGE,
    ),
    "shortcut": (
        lambda: Calls(lambda own, x: F.relu(own[0](x) + own[1](x)), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)),
        IMAGE,
    ),
    "slabs": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)),
        (1, 8, 25, 19),
    ),
    "linear": (lambda: nn.Linear(12, 20), ROWS),
    "linear + clamp": (lambda: nn.Sequential(nn.Linear(12, 70), nn.Hardtanh()), ROWS),
    "linear over words": (lambda: nn.Linear(12, 20), WORDS),
    "scale": (lambda: nn.Sequential(nn.MaxPool2d(2), norm()), IMAGE),
    "clamp": (lambda: nn.Sequential(nn.MaxPool2d(1), nn.ReLU6()), IMAGE),
    "add": (lambda: Calls(lambda own, x: x + x.relu()), IMAGE),
    "product": (lambda: Calls(lambda own, x: x * own[0](x), nn.Conv2d(8, 8, 1)), IMAGE),
    "difference of features": (lambda: Calls(lambda own, x: own[0](x) - x, nn.Linear(12, 12)), ROWS),
    "squeeze and excitation": (
        lambda: Calls(lambda own, x: own[1](x * own[0](x.mean((2, 3), True)).sigmoid()), nn.Conv2d(8, 8, 1), norm()),
        IMAGE,
    ),
    "numbers": (lambda: Calls(lambda own, x: 2 - x.relu() * 3), IMAGE),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "mean": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "concat, slice": (lambda: Calls(lambda own, x: torch.cat([x[:, 2:7], x[:, :, :]], 1)), IMAGE),
    "strided slice": (lambda: Calls(lambda own, x: x[:, :, ::2, ::2]), IMAGE),
    "pad": (lambda: Calls(lambda own, x: F.pad(x, (1, 2, 0, 1))), IMAGE),
    "flatten": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 9)), IMAGE),
    "layer norm": (lambda: nn.LayerNorm(12), WORDS),
    "attention": (lambda: Attends(False), WORDS),
    "attention, causal": (lambda: Attends(True), WORDS),
    "multi-head attention": (lambda: nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), WORDS),
    "multi-head attention, the other order": (lambda: nn.TransformerEncoderLayer(12, 3, 20, norm_first=True), WORDS),
    "gelu that is spelled out": (
        lambda: Calls(lambda own, x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))),
        WORDS,
    ),
    "unit length": (lambda: Calls(lambda own, x: F.normalize(own[0](x), dim=1), nn.Linear(12, 8)), ROWS),
    "mean of words": (lambda: Calls(mean_of_words, nn.Linear(12, 8)), WORDS),
    "tokens, join": (
        lambda: Calls(
            lambda own, x: (lambda y: torch.cat([own[1](y), y], 1)[:, 0])(own[0](x).flatten(2).transpose(1, 2)),
            nn.Conv2d(8, 12, 1),
            nn.Linear(12, 12),
        ),
        IMAGE,
    ),
    "transposed convolution": (lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1), IMAGE),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (2, 3, 8, 6)),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "channel shuffle as views": (
        lambda: Calls(lambda own, x: x.view(2, 2, 4, 7, 5).transpose(1, 2).reshape(2, 8, 7, 5)),
        IMAGE,
    ),
    "split": (lambda: Calls(lambda own, x: torch.cat(x.chunk(2, 1)[::-1], 1)), IMAGE),
    "upsampling": (lambda: nn.Upsample(scale_factor=2, mode="nearest"), IMAGE),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "sigmoid": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Sigmoid()), IMAGE),
    "recurrent": (lambda: Calls(lambda own, x: own[0](x)[0], nn.GRU(12, 5, batch_first=True)), WORDS),
    "recurrent, final state": (lambda: Calls(lambda own, x: own[0](x)[1], nn.GRU(12, 5)), WORDS),
    "regroup": (lambda: Calls(lambda own, x: own[0](x.reshape(12, 12)), nn.Linear(12, 8)), WORDS),
    "swap": (lambda: Calls(lambda own, x: own[0](x.transpose(0, 1))[0], nn.GRU(12, 5)), WORDS),
    "tokens rounded by themselves": (lambda: reads_rounded_rows(), WORDS),
    "rows rounded by themselves": (lambda: reads_rounded_rows(), ROWS),
    "tokens rounded by themselves behind layer norm": (
        lambda: nn.Sequential(nn.LayerNorm(12), reads_rounded_rows()),
        WORDS,
    ),
    "rounding": (lambda: Calls(lambda own, x: torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -127, 127)), IMAGE),
}
FLAGS = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
OTHER_INPUTS = {"mean of words": (FLAGS,)}
NO_FLOATS_GO_IN = {"input", "torch", "constant", "embedding"}
VALUES = [np.nan], [np.inf], [-np.inf], [np.nan, np.inf, -np.inf]


def spoiled(shape, values, seed):
    """Random numbers with a few of `values` among them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).astype(np.float32)
    places = random.choice(x.size, 3, replace=False)
    x.reshape(-1)[places] = random.choice(values, 3)
    return torch.from_numpy(x)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("name", ["conv 3x3", "conv + relu", "conv + add + relu6"])
def test_winograds_convolution_is_as_in_pytorch(name, m, monkeypatch):
    winograd_everywhere(monkeypatch, m)
    test_as_in_pytorch(name)


@pytest.mark.parametrize("name", CASES)
def test_as_in_pytorch(name):
    build, shape = CASES[name]
    torch.manual_seed(0)
    model = build().eval()
    others = OTHER_INPUTS.get(name, ())
    example = torch.randn(shape), *others
    artifact = openwork.compile(model, example, threads=1, tune="off").artifact
    for isa in _native.isas():
        engine = Engine(artifact, 1, isa)
        assert not left_to_torch(engine)
        clean = spoiled(shape, [0.0], 9)
        before = engine(clean, *others)
        for values in VALUES:
            for seed in range(3):
                x = spoiled(shape, values, seed)
                with torch.no_grad():
                    wanted = model(x, *others)
                torch.testing.assert_close(engine(x, *others), wanted, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert torch.equal(engine(clean, *others), before), "a run leaves nothing behind for the next"


def test_every_native_operator_is_among_the_cases():
    operators.shape_rule("conv")  # loads the folder
    seen = set()
    for name, (build, shape) in CASES.items():
        example = torch.randn(shape), *OTHER_INPUTS.get(name, ())
        seen |= {node.op for node in optimize(capture(build().eval(), example))}
    missing = set(operators._lowerings) - seen - NO_FLOATS_GO_IN
    assert not missing, f"add a case for {', '.join(sorted(missing))}"


def test_under_a_zero_weight_it_is_not_seen():
    """Zero weights are not computed; PyTorch would multiply them."""
    model = nn.Linear(12, 20)
    model.weight.data[:, 3] = 0
    model.weight.data[:, 4:].fill_(1)
    engine = compiled(model, ROWS)
    x = torch.zeros(ROWS)
    x[0, 3] = float("nan")
    assert model(x)[0].isnan().all() and not engine(x).isnan().any()


@pytest.mark.parametrize("height", [1, 2, 4, 16])
def test_under_scattered_zeros_neither(height):
    """Panels of any width compute the weights that there are, and those only."""
    torch.manual_seed(0)
    model = nn.Linear(90, 48)
    mask = (torch.rand(48 // height, 90) < 0.15).repeat_interleave(height, 0)
    model.weight.data *= mask
    engine = compiled(model, (2, 90))
    x = spoiled((2, 90), [np.nan, np.inf, -np.inf], 0)
    terms = torch.where(mask, model.weight.data * x.unsqueeze(1), torch.zeros(()))
    torch.testing.assert_close(engine(x), terms.sum(-1) + model.bias.data, rtol=1e-4, atol=1e-4, equal_nan=True)
