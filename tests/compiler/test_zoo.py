"""Whole networks of the zoo with random sparse weights give PyTorch's outputs, and nothing is left to PyTorch."""

import pytest
import torch
from small_models import assert_agrees, compiled, left_to_torch, lively
from torch import nn

import openwork
from openwork import models

QUICK = {
    "lenet5": None,
    "alexnet_cifar": None,
    "cifar10_resnet20": None,
    "cifar10_resnet56": None,
    "resnet18": (3, 64, 64),
    "mobilenetv2": (3, 64, 64),
}
"""Models and the image they are tried on; None: their own. Small images are quicker and have more border."""
SLOW = ("resnet50", "vgg16", "mobilenetv2", "resnet18", "cifar10_vgg16")


def sparse(name, sparsity=0.8):
    """The model with random weights, zeros and batch norm statistics."""
    torch.manual_seed(0)
    model = lively(models.resolve(name, weights=None), sparsity)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # outputs as large as inputs: else a hundred layers in a row fade, explode, or magnify every rounding error
            weight = module.weight.data
            weight /= (weight.square().sum() / len(weight)).sqrt()
    return model


def check(name, batch, image=None, **options):
    model = sparse(name)
    shape = (batch, *(image or models.input_shape(name)[1:]))
    engine = compiled(model, shape, **options)
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, shape)
    return engine


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", QUICK)
def test_a_model_of_the_zoo(name, batch):
    check(name, batch, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", SLOW)
def test_a_large_model_of_the_zoo_at_its_own_size(name, batch, tmp_path):
    engine = check(name, batch, threads=2)
    engine.save(tmp_path / "a.openwork")
    x = torch.randn(engine.inputs[0].shape)
    assert torch.equal(openwork.load(tmp_path / "a.openwork", threads=2)(x), engine(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_model_of_the_zoo_at_batch_8(name):
    check(name, 8, QUICK[name])
