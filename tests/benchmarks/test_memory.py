"""What engines need beside the weights, against what the networks must keep at one time."""

import warnings

import pytest
from _live import largest_live

from openwork import models
from openwork.compiler.capture import capture
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize

LIMIT = 1.5
ARENAS = {
    "resnet50": 1.39,
    "vgg16": 1.29,
    "densenet121": 1.38,
    "mobilenetv2": 1.20,
    "shufflenetv2": 1.28,
    "efficientnet_lite0": 0.74,
    "unet": 0.92,
    "minilm": 1.12,
    "vit_s": 1.26,
    "edsr": 1.08,
}
"""Arena over the largest live activations, with images whole or in two slabs, rounded up: padding, and room that
saves clearing. Less than 1: inputs and outputs lie with the caller, but are alive, as are padded copies."""


@pytest.mark.parametrize("slabs", [1, 2])
@pytest.mark.parametrize("name", ARENAS)
def test_the_arena_is_little_larger_than_what_is_alive(name, slabs):
    model, inputs = models.resolve(name, weights=None).eval(), models.example_inputs(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = 4 * lower(optimize(capture(model, inputs)), slabs).program.arena / largest_live(model, inputs)
    assert found <= ARENAS[name] <= LIMIT
