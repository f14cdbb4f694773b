"""Results depend on nothing that a run before has left in the arena, wherever it ended."""

import numpy as np
import pytest
import torch
from small_models import compiled
from test_zoo import QUICK, sparse

from openwork import models

DEEP = [name for name in QUICK if name not in ("lenet5", "cifar10_resnet56")]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", DEEP)
def test_a_run_relies_on_nothing_of_the_runs_before(name, batch):
    shape = (batch, *(QUICK[name] or models.input_shape(name)[1:]))
    engine = compiled(sparse(name), shape, threads=2)
    x = torch.randn(shape)
    before = engine(x)
    assert not before.isnan().any()
    buffers = [np.full(e.shape, np.nan, np.float32) for e in engine.artifact.program.externals]
    for end in np.random.default_rng(0).integers(1, len(engine.artifact.program.steps) + 1, 5):
        engine._native.run(0, int(end), buffers)
        assert torch.equal(engine(x), before)


def test_places_that_are_taken_over_are_cleared():
    """Else the test above would say little."""
    ops = [step.op for step in compiled(sparse("resnet18"), (1, 3, 64, 64)).artifact.program.steps]
    assert "clear" in ops
