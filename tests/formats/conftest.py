"""Makes `small_models` and the modules beside the tests importable; compiles one small network for all of them."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "compiler")]

from small_models import Calls, compiled, lively  # noqa: E402 - needs the path above


@pytest.fixture(scope="session")
def model():
    """Every kind of native step, sparse and dense, and an operator that PyTorch runs."""
    torch.manual_seed(0)

    def forward(own, x):
        y = own[0](x).relu()
        y = torch.cat([nn.functional.max_pool2d(y, 2), own[1](y)], 1)
        y = torch.sin(own[2](y)) + y
        return own[3](nn.functional.avg_pool2d(y, 2).flatten(1)), y.mean((2, 3))

    layers = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 3, 3, 2, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Linear(32, 7)
    model = Calls(forward, *layers)
    lively(nn.Sequential(*list(layers)[1:]), sparsity=0.5)
    return model.eval()


@pytest.fixture(scope="session")
def engine(model):
    return compiled(
        model, (2, 2, 8, 8), provenance={"recipe": "block4x1-90", "accuracy": 0.9173, "note": 'a "quoted" ä\n'}
    )


@pytest.fixture(scope="session")
def native_engine():
    """One that needs no torch to run."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    return compiled(lively(model, sparsity=0.5), (1, 1, 8, 8))
