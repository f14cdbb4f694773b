"""More networks for test_operators, by family: what convolutional networks use besides convolution and pooling."""

import torch
import torch.nn.functional as F
from small_models import Calls
from torch import nn


def conv(out, kernel, **options):
    return nn.Conv2d(6, out, kernel, **options)


def does(function, *layers):
    return Calls(lambda own, x: function(*own, x), *layers)


FUNCTIONS = {
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "leaky relu": nn.LeakyReLU(0.1),
    "elu": nn.ELU(1.5),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.7),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(2, 1.5),
    "prelu": nn.PReLU(6, init=0.3),
    "prelu, one slope": nn.PReLU(init=-0.2),
    "exp": does(lambda x: x.exp()),
    "square": does(lambda x: x.square()),
    "root of square": does(lambda x: (x**2) ** 0.5),
    "root": does(lambda x: (x.exp()).sqrt()),
    "rsqrt": does(lambda x: x.exp().rsqrt()),
    "reciprocal": does(lambda x: x.abs().exp().reciprocal()),
    "erf": does(lambda x: x.erf()),
}
ACTIVATIONS = {
    **{name: lambda f=f: f for name, f in FUNCTIONS.items()},
    **{f"{name} of a conv": lambda f=f: nn.Sequential(conv(6, 3, padding=1), f) for name, f in FUNCTIONS.items()},
    "silu of bn": lambda: nn.Sequential(conv(5, 3, bias=False), nn.BatchNorm2d(5), nn.SiLU(inplace=True)),
    "silu of bn alone": lambda: nn.Sequential(nn.BatchNorm2d(6), nn.SiLU()),
    "gelu of an addition": lambda: does(lambda c, x: F.gelu(c(x) + x), conv(6, 3, padding=1)),
    "prelu of an addition": lambda: does(lambda c, p, x: p(c(x) + x), conv(6, 1), nn.PReLU(6, init=0.1)),
    "prelu of uneven channels": lambda: nn.Sequential(conv(13, 3), nn.PReLU(13, init=0.1), nn.Conv2d(13, 3, 3)),
    "read twice": lambda: does(lambda c, x: (lambda y: y + y.sigmoid())(c(x)), conv(5, 3)),
    "clamp after silu": lambda: nn.Sequential(conv(5, 3), nn.SiLU(), nn.ReLU6()),
    "silu after clamp": lambda: nn.Sequential(conv(5, 3), nn.ReLU6(), nn.SiLU()),
    "after pooling": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Tanh(), conv(5, 3, padding=1)),
    "of linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(594, 70), nn.SiLU(), nn.Linear(70, 5), nn.Sigmoid()),
    "of features": lambda: nn.Sequential(nn.Flatten(), nn.GELU()),
    "of means": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.ReLU6(), nn.Flatten(), nn.ELU()),
    "convs of one pixel": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), conv(20, 1), nn.SiLU(), nn.Conv2d(20, 7, 3, padding=1), nn.PReLU(7), nn.Sigmoid()
    ),
    "grouped conv of one pixel": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(6, 1, groups=2), nn.Tanh()),
    "strided conv of one pixel": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(5, 3, stride=2, padding=2)),
    "keeps padding zero": lambda: nn.Sequential(conv(5, 3, padding=2), nn.Sigmoid(), nn.Conv2d(5, 4, 5, padding=2)),
}


def shuffled(x, groups):
    """How ShuffleNet writes it."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def larger(x, r):
    """Pixel shuffle by hand, with the phases before the channels, as TensorFlow has them."""
    n, c, h, w = x.shape
    return x.view(n, r, r, c // (r * r), h, w).permute(0, 3, 4, 1, 5, 2).contiguous().view(n, -1, h * r, w * r)


def smaller(x, r):
    """Space to depth by hand."""
    n, c, h, w = x.shape
    return x.view(n, c, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // r, w // r)


PERM = torch.tensor([4, 0, 0, 5])
REARRANGEMENTS = {
    "chunks": lambda: does(lambda c, x: torch.cat([t.relu() for t in c(x).chunk(3, 1)], 1), conv(8, 3)),
    "split": lambda: does(lambda c, x: c(x.split([1, 2, 3], 1)[2]) + x.split(3, 1)[1], nn.Conv2d(3, 3, 1)),
    "split, one piece": lambda: does(lambda x: x.split(6, 1)[0].relu()),
    "split of rows": lambda: does(lambda x: x.chunk(2, 2)[1]),
    "split of columns": lambda: does(lambda c, x: c(x.split(4, 3)[1]), conv(5, 3)),
    "every second channel": lambda: does(lambda c, x: c(x[:, 1::2]), nn.Conv2d(3, 5, 3)),
    "channel shuffle": lambda: nn.Sequential(conv(6, 1), nn.ChannelShuffle(3), conv(4, 3, groups=2)),
    "channel shuffle by hand": lambda: does(lambda c, x: c(shuffled(x, 2)) + shuffled(c(x), 3), conv(6, 3, padding=1)),
    "channels by number": lambda: does(lambda c, x: c(x[:, PERM]), nn.Conv2d(4, 5, 3)),
    "flipped channels": lambda: does(lambda x: x.flip(1).roll(2, 1)),
    "repeated channels": lambda: does(lambda x: x.repeat(1, 2, 1, 1)[:, 3:9] + x.repeat_interleave(2, 1)[:, :6]),
    "expanded channel": lambda: does(lambda c, x: c(x).expand(-1, 6, -1, -1) + x, conv(1, 3, padding=1)),
    "pixel shuffle": lambda: nn.Sequential(conv(8, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(2, 3, 3)),
    "pixel shuffle 3": lambda: nn.Sequential(conv(9, 3, padding=1), nn.PixelShuffle(3), nn.ReLU()),
    "pixel shuffle 4": lambda: nn.Sequential(conv(16, 3), nn.PixelShuffle(4)),
    "pixel shuffle 5": lambda: nn.Sequential(conv(25, 3), nn.PixelShuffle(5)),
    "pixel shuffle by hand": lambda: does(lambda c, x: larger(c(x), 2), conv(12, 3)),
    "pixel unshuffle": lambda: does(lambda c, x: c(F.pixel_unshuffle(x[:, :, :10, :8], 2)), nn.Conv2d(24, 5, 3)),
    "pixel unshuffle 3": lambda: does(lambda x: F.pixel_unshuffle(x[:, :, :9], 3)),
    "space to depth": lambda: does(lambda c, x: c(smaller(x[:, :, 1:, 1:], 2)), nn.Conv2d(24, 5, 3)),
    "there and back": lambda: does(lambda x: larger(smaller(x[:, :, 1:, 1:], 2), 2).relu()),
    "features to pixels": lambda: does(
        lambda c, d, x: d(c(x.mean((2, 3))).view(-1, 5, 2, 4)), nn.Linear(6, 40), nn.Conv2d(5, 3, 2)
    ),
    "unsqueezed": lambda: does(lambda c, x: c(x.mean((2, 3))[:, :, None, None]), conv(5, 1)),
    "squeezed": lambda: does(lambda c, x: c(x.mean((2, 3), True).squeeze(-1).squeeze(-1)), nn.Linear(6, 5)),
    "images of another shape": lambda: does(lambda c, x: c(x.reshape(-1, 2, 27, 11)), nn.Conv2d(2, 3, 3)),
}


def back(out, kernel, **options):
    return nn.ConvTranspose2d(6, out, kernel, **options)


ENLARGEMENTS = {
    **{
        f"transposed {k}x{k} stride {s} padding {p}": lambda k=k, s=s, p=p: back(5, k, stride=s, padding=p)
        for k in (1, 2, 3, 4)
        for s in (1, 2, 3)
        for p in (0, 1)
        if p < k
    },
    "transposed, uneven": lambda: back(5, (2, 5), stride=(3, 2), padding=(0, 2)),
    "transposed, extra": lambda: back(8, 3, stride=2, padding=1, output_padding=1),
    "transposed, extra of one axis": lambda: back(5, 3, stride=(2, 3), output_padding=(0, 2)),
    "transposed, dilated": lambda: back(5, 3, stride=2, dilation=2, padding=2),
    "transposed, dilation meets stride": lambda: back(5, 3, stride=3, dilation=3),
    "transposed, groups": lambda: back(9, 3, stride=2, padding=1, groups=3),
    "transposed, depthwise": lambda: back(6, 4, stride=2, padding=1, groups=6),
    "transposed, cropped": lambda: back(5, 4, stride=2, padding=3),
    "transposed, no bias": lambda: back(16, 2, stride=2, bias=False),
    "transposed, norm and activation": lambda: nn.Sequential(
        back(5, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(5), nn.LeakyReLU(0.2), nn.Conv2d(5, 3, 3)
    ),
    "transposed, prelu": lambda: nn.Sequential(back(5, 4, stride=2, padding=1), nn.PReLU(5, init=0.2), nn.Sigmoid()),
    "transposed twice": lambda: nn.Sequential(back(5, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(5, 3, 2, stride=2)),
    "transposed, joined": lambda: does(
        lambda c, t, d, x: d(torch.cat([t(F.relu(c(x))), x], 1)),
        conv(8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1),
        nn.Conv2d(10, 5, 3),
    ),
    "repeated": lambda: nn.Sequential(conv(5, 3), nn.Upsample(scale_factor=2), nn.Conv2d(5, 3, 3, padding=1)),
    "repeated 3x5": lambda: does(lambda x: F.interpolate(x, scale_factor=(3, 5))),
    "repeated exactly": lambda: does(lambda x: F.interpolate(x, size=(22, 36), mode="nearest-exact")),
    "repeated, unchanged": lambda: does(lambda x: F.interpolate(x, size=(11, 9)).relu()),
    **{
        f"bilinear {options}": lambda o=options: does(lambda x: F.interpolate(x, mode="bilinear", **o))
        for options in (
            {"scale_factor": 2},
            {"scale_factor": 2, "align_corners": True},
            {"scale_factor": (3, 1.7), "align_corners": False},
            {"scale_factor": 0.6, "recompute_scale_factor": True},
            {"size": (5, 40)},
            {"size": (11, 4), "align_corners": True},
            {"size": (1, 1)},
        )
    },
    "bilinear, between convs": lambda: nn.Sequential(
        conv(5, 3), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(5, 3, 3, padding=1)
    ),
    "bilinear, joined": lambda: does(
        lambda c, d, x: d(torch.cat([F.interpolate(c(x).relu(), (11, 9), mode="bilinear"), x], 1)),
        conv(4, 3, stride=2),
        nn.Conv2d(10, 5, 3, padding=1),
    ),
    "bilinear, from one pixel": lambda: does(lambda x: F.interpolate(x.mean((2, 3), True), (7, 8), mode="bilinear")),
    "bilinear, unchanged": lambda: does(lambda x: F.interpolate(x, (11, 9), mode="bilinear").relu()),
    "repeated pixel": lambda: does(lambda c, x: F.interpolate(c(x.mean((2, 3), True)), (11, 9)) + x, conv(6, 1)),
}


class Excited(nn.Module):
    """Squeeze and excitation: a weight for each channel and sample, from the means of all channels."""

    def __init__(self, channels, gate):
        super().__init__()
        self.squeeze, self.excite, self.gate = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1), gate

    def forward(self, x):
        return x * self.gate(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


MEAN, DEVIATION = (
    torch.tensor([0.5, -0.3, 0.2, 0.0, 1.0, 2.0]).view(6, 1, 1),
    torch.linspace(0.5, 2, 6).view(1, 6, 1, 1),
)
PICTURE = torch.linspace(-1, 1, 99).view(11, 9)
ARITHMETIC = {
    "numbers": lambda: does(lambda x: (x + 1.5) * 2 - x / 3),
    "numbers first": lambda: does(lambda x: (1 - x) * (2 + x) - 3 / (1 + x.abs())),
    "negative": lambda: does(lambda c, x: -c(x), conv(5, 3)),
    "multiples": lambda: does(lambda x: torch.sub(x, 2.0, alpha=3) + torch.sub(MEAN, x, alpha=0.5)),
    "normalised": lambda: does(lambda c, x: c((x / 4 - MEAN) / DEVIATION), conv(5, 3, padding=1)),
    "mean back": lambda: does(lambda c, x: c(x) + MEAN, conv(6, 3)),
    "constants first": lambda: does(lambda x: DEVIATION / (1 + x.abs()) - (MEAN - x)),
    "residual, scaled": lambda: does(lambda c, x: x + 0.1 * c(x), conv(6, 3, padding=1)),
    "a picture": lambda: does(lambda c, x: c(x * PICTURE) + PICTURE, conv(6, 3, padding=1)),
    "divided by a picture": lambda: does(lambda x: x / (2 + PICTURE) - (2 + PICTURE) / (3 + x.abs())),
    "product": lambda: does(lambda c, x: c(x) * x, conv(6, 3, padding=1)),
    "product, then activation": lambda: does(lambda c, x: F.silu(c(x) * x) + F.relu6(x * c(x)), conv(6, 1)),
    "difference": lambda: does(lambda c, x: (c(x) - x).relu(), conv(6, 3, padding=1)),
    "quotient": lambda: does(lambda c, x: c(x) / (1 + x.abs()), conv(6, 3, padding=1)),
    "product with prelu": lambda: does(lambda p, x: p(x * x.sigmoid()), nn.PReLU(6, init=0.2)),
    "larger": lambda: does(lambda c, x: torch.maximum(c(x), x), conv(6, 3, padding=1)),
    "smaller": lambda: does(lambda x: torch.minimum(x, MEAN)),
    "cube": lambda: does(lambda x: x**3),
    "gated linear unit": lambda: nn.Sequential(conv(10, 3), nn.GLU(1), nn.Conv2d(5, 3, 3, padding=1)),
    "squeeze and excitation": lambda: nn.Sequential(
        conv(8, 3, padding=1), Excited(8, nn.Sigmoid()), nn.Conv2d(8, 5, 1)
    ),
    "block of EfficientNet": lambda: does(
        lambda a, b, c, x: c(b(a(x))) + x,
        nn.Sequential(conv(24, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU()),
        nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.SiLU()),
        nn.Sequential(Excited(24, nn.Sigmoid()), nn.Conv2d(24, 6, 1, bias=False), nn.BatchNorm2d(6)),
    ),
    "block of MobileNetV3": lambda: nn.Sequential(
        nn.Sequential(conv(20, 1, bias=False), nn.BatchNorm2d(20), nn.Hardswish()),
        nn.Sequential(nn.Conv2d(20, 20, 5, 2, 2, groups=20, bias=False), nn.BatchNorm2d(20)),
        nn.Sequential(Excited(20, nn.Hardsigmoid()), nn.Hardswish(), nn.Conv2d(20, 7, 1), nn.BatchNorm2d(7)),
    ),
    "hard excitation": lambda: nn.Sequential(conv(8, 3, padding=1), Excited(8, nn.Hardsigmoid()), nn.ReLU()),
    "one map for all channels": lambda: does(lambda c, x: x * c(x).sigmoid(), conv(1, 3, padding=1)),
    "one number for a sample": lambda: does(lambda c, x: x * c(x.mean((2, 3), True)), conv(1, 1)),
    "means first": lambda: does(lambda x: x.mean((2, 3), True) - x),
    "divided means": lambda: does(lambda x: x.mean((2, 3), True) / (1 + x.abs())),
    "features": lambda: does(lambda c, x: (lambda y: c(y) * y + 2 * y - c(y))(x.mean((2, 3))), nn.Linear(6, 6)),
    "one pixel": lambda: does(lambda c, x: (lambda y: c(y) * y + y)(x.mean((2, 3), True)), conv(6, 1)),
}


def each(kernel, channels=6, out=6, **options):
    """A convolution with kernels for each of the channels that another layer makes."""
    return nn.Sequential(conv(channels, 1), nn.Conv2d(channels, out, kernel, groups=channels, **options))


def mostly_zero(kernel, **options):
    layers = each(kernel, **options)
    layers[1].weight.data[:, :, 1:] = 0
    return layers


def one_side(layer, amounts, kernel=1):
    """Zeros that are not the same on both sides before `layer`: (left, right, above, below)."""
    return does(lambda c, d, x: d(F.pad(c(x), amounts)), conv(6, kernel), layer)


STEPS = {
    **{f"{k}x{k}": lambda k=k: each(k, padding=k // 2) for k in (3, 5, 7, 15)},
    **{f"{k}x{k} stride 2": lambda k=k: each(k, stride=2, padding=k // 2) for k in (3, 5, 7)},
    "1x5": lambda: each((1, 5), padding=(0, 2)),
    "7x3, no padding": lambda: each((7, 3)),
    "even kernel": lambda: each(4, stride=2, padding=1),
    "more padding than kernel": lambda: each(3, padding=5),
    "twice as many": lambda: each(3, out=12, padding=1),
    "three times as many, stride 2": lambda: each(5, out=18, stride=2, padding=2, bias=False),
    "bn, relu6": lambda: nn.Sequential(each(3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
    "prelu": lambda: nn.Sequential(each(3, padding=1), nn.PReLU(6, init=0.3)),
    "silu": lambda: nn.Sequential(each(5, padding=2), nn.SiLU()),
    "hardswish, stride 2": lambda: nn.Sequential(each(5, padding=2, stride=2), nn.Hardswish(), conv(5, 3)),
    "twice as many, prelu": lambda: nn.Sequential(each(3, out=12), nn.PReLU(12, init=-0.2)),
    "of channels in another order": lambda: does(
        lambda a, c, x: c(torch.cat([x[:, :2], a(x), x[:, 3:]], 1)[:, PERM]), conv(3, 1), nn.Conv2d(4, 4, 3, groups=4)
    ),
    "of pooled pixels": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1, groups=6)),
    "one after the other": lambda: nn.Sequential(each(3, padding=1), nn.Conv2d(6, 6, 5, 2, 2, groups=6), conv(5, 1)),
    "block of MobileNetV2": lambda: does(
        lambda a, b, c, x: c(b(a(x))) + x,
        nn.Sequential(conv(24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()),
        nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()),
        nn.Sequential(nn.Conv2d(24, 6, 1, bias=False), nn.BatchNorm2d(6)),
    ),
    "TensorFlow's same": lambda: one_side(conv(6, 3, stride=2, groups=6), (0, 1, 0, 1)),
    "TensorFlow's same, 5x5": lambda: one_side(conv(6, 5, stride=2, groups=6), (1, 2, 1, 2)),
    "zeros on one side and on all": lambda: one_side(conv(6, 3, padding=1, groups=6), (3, 0, 0, 2)),
}
TAPS = {
    "stride (2, 1)": lambda: each(3, stride=(2, 1), padding=1),
    "stride 3": lambda: each(3, stride=3, padding=1),
    "dilation 2": lambda: each(3, dilation=2, padding=2),
    "larger than 15": lambda: each((1, 17), padding=(0, 8)),
    "mostly zero": lambda: mostly_zero(5, padding=2),
    "mostly zero, TensorFlow's same": lambda: one_side(mostly_zero(3, stride=2)[1], (0, 1, 0, 1)),
    "of the model's input": lambda: conv(6, 3, padding=1, groups=6),
    "residual": lambda: does(
        lambda a, b, x: (lambda y: (b(y) + y).relu())(a(x)), conv(6, 1), conv(6, 3, padding=1, groups=6)
    ),
}
DEPTHWISE = {**STEPS, **{f"{name}, taps": build for name, build in TAPS.items()}}
ONE_SIDE = {
    "TensorFlow's same": lambda: one_side(conv(5, 3, stride=2), (0, 1, 0, 1)),
    "TensorFlow's same, of the model's input": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(5, 3, stride=2)),
    "TensorFlow's same, 7x7": lambda: one_side(conv(5, 7, stride=2), (2, 3, 2, 3)),
    "stride 1": lambda: one_side(conv(5, 3), (2, 0, 0, 1), 3),
    "stride (1, 3)": lambda: one_side(conv(5, 3, stride=(1, 3)), (1, 0, 0, 2)),
    "much": lambda: one_side(conv(5, 3), (7, 0, 0, 9)),
    "much behind, dilation 2": lambda: one_side(conv(5, 3, dilation=2, padding=1), (0, 8, 0, 3)),
    "groups": lambda: one_side(conv(9, 3, groups=3, stride=2), (0, 1, 1, 0)),
    "beside a conv that pads evenly": lambda: does(
        lambda a, b, c, x: a(F.pad(c(x), (0, 2, 0, 2))) + b(c(x)), conv(5, 3), conv(5, 3, padding=1), conv(6, 1)
    ),
    "1x1 before an addition": lambda: does(
        lambda a, b, x: (a(F.pad(x, (0, 1, 0, 0))) + b(F.pad(x, (1, 0, 0, 0)))).relu(), conv(5, 1), conv(5, 1)
    ),
    "one pixel": lambda: does(lambda c, x: c(F.pad(x.mean((2, 3), True), (0, 2, 1, 0))), conv(5, (2, 3))),
    "twice": lambda: does(lambda c, x: c(F.pad(F.pad(x, (0, 1, 2, 0)), (1, 0, 0, 1))), conv(5, 3)),
}
FAMILIES = {
    "depthwise": DEPTHWISE,
    "zeros on one side": ONE_SIDE,
    "activations": ACTIVATIONS,
    "enlargements": ENLARGEMENTS,
    "rearrangements": REARRANGEMENTS,
    "arithmetic": ARITHMETIC,
}
