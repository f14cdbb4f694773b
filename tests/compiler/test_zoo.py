"""Whole networks of the zoo with random sparse weights give PyTorch's outputs; what is left to PyTorch is known."""

import pytest
import torch
from small_models import assert_agrees, assert_agrees_on, compiled, left_to_torch, lively
from torch import nn

import openwork
from openwork import models, plugins

QUICK = {
    "lenet5": None,
    "alexnet_cifar": None,
    "cifar10_resnet20": None,
    "cifar10_resnet56": None,
    "edsr": (3, 12, 15),
    "efficientnet_lite0": (3, 64, 64),
    "espcn": (1, 20, 17),
    "resnet18": (3, 64, 64),
    "shufflenetv2": (3, 64, 64),
    "unet": (3, 32, 48),
    "mobilenetv2": (3, 64, 64),
}
"""Models and the image they are tried on; None: their own. Small images are quicker and have more border."""
SLOW = ("resnet50", "vgg16", "mobilenetv2", "resnet18", "cifar10_vgg16", "densenet121", "efficientnet_lite0")


def sparse(name, sparsity=0.8):
    """The model with random weights, zeros and batch norm statistics."""
    torch.manual_seed(0)
    model = lively(models.resolve(name, weights=None), sparsity)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            for name_of, weight in module.named_parameters():
                if "weight" in name_of:
                    weight.data[torch.rand(weight.shape) < sparsity] = 0
    return normed(model)


def normed(model):
    """The model with outputs as large as inputs: else a hundred layers in a row fade, explode, or magnify rounding."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
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


@pytest.mark.parametrize("batch", [1, 3])
def test_a_unet_that_interpolates(batch):
    torch.manual_seed(0)
    model = normed(lively(models.resolve("unet", weights=None, upsampling="bilinear"), 0.8))
    engine = compiled(model, (batch, 3, 36, 48))
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, (batch, 3, 36, 48))


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


# Model, what its inputs are (the shape of an image, or options of example_inputs), what may be left to PyTorch.
PARTLY_NATIVE = [
    ("bert_base", {"length": 32}, set()),
    ("gru_timit", {"length": 3}, set()),
    ("lstm_timit", {"length": 3}, set()),
    ("minilm", {"length": 24}, set()),
    ("vit_cifar", None, set()),
    ("vit_s", None, set()),
]
HEAVY = ("bert_base", "vit_s")


def inputs_of(name, batch, kind):
    if isinstance(kind, dict):
        return models.example_inputs(name, batch, **kind)
    return (torch.randn(batch, *(kind or models.input_shape(name)[1:])),)


def others(inputs):
    """Inputs that the compiler has not seen: other numbers, and other places of words and padding."""
    return tuple(torch.randn_like(x) if x.is_floating_point() else x.roll(3, dims=-1) for x in inputs)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("name", "kind", "left"),
    [pytest.param(*case, id=case[0], marks=pytest.mark.slow if case[0] in HEAVY else ()) for case in PARTLY_NATIVE],
)
def test_a_model_of_the_zoo_that_is_partly_native(name, kind, left, batch):
    model, inputs = sparse(name), inputs_of(name, batch, kind)
    engine = openwork.compile(model, inputs, threads=1, tune="off")
    assert set(left_to_torch(engine)) <= left
    assert_agrees_on(engine, model, others(inputs))


def test_every_model_of_the_zoo_is_compiled_here():
    assert {*QUICK, *SLOW, *(name for name, *_ in PARTLY_NATIVE)} >= {
        name for name in plugins.names("models") if not name.startswith("cifar10_resnet")
    }
