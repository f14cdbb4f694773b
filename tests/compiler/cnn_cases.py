"""More networks for test_operators, by family: what convolutional networks use besides convolution and pooling."""

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
FAMILIES = {"activations": ACTIVATIONS}
