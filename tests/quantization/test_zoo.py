"""The zoo, quantized: every kind of network is captured, and published weights keep their accuracy on real data."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import openwork
from openwork import data, models
from openwork.models import minilm
from openwork.quantization.quantize import report_of

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))

# Layers, and activations that are rounded.
SIZES = {
    "cifar10_resnet20": (20, 21),
    "cifar10_resnet56": (56, 57),
    "efficientnet_lite0": (50, 51),
    "minilm": (36, 24),
    "mobilenetv2": (53, 54),
    "resnet50": (54, 55),
    "vgg16": (16, 16),
    "vit_s": (50, 50),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_networks_of_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    model = models.resolve(name, weights=None)
    options = {"length": 16} if name == "minilm" else {}
    x = models.example_inputs(name, 2, **options)
    small = openwork.quantize(model, [x], x, weights="max", correct_bias=False, measured=0)
    found = report_of(small)
    assert (len(found.layers), len(found.places)) == SIZES[name] and found.any_batch and not found.left
    one = tuple(t[:1] for t in x)
    with torch.inference_mode():
        y, z = model(*one), small(*one)
    assert 0 < float((y - z).norm() / y.norm()) < 0.2


def right(network: nn.Module, batches: Any) -> int:
    with torch.inference_mode():
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "imagenet_compatible").is_dir(), reason="OPENWORK_DATA holds no imagenet_compatible/")
def test_efficientnet_lite0_keeps_its_accuracy() -> None:
    # Calibrated on the first 96 photographs and measured on the next 200; all of them: docs/quantization.md.
    model, batches = models.resolve("efficientnet_lite0"), data.resolve("imagenet_compatible").test_batches(32)
    small = openwork.quantize(model, [next(batches)[0] for _ in range(3)], measured=0)
    unseen = [next(batches) for _ in range(6)]
    assert abs(right(small, unseen) - right(model, unseen)) <= 4


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="OPENWORK_DATA holds no cifar10/")
def test_resnet56_keeps_its_accuracy() -> None:
    model, images = models.resolve("cifar10_resnet56"), data.resolve("cifar10", holdout=5000)
    small = openwork.quantize(model, images, measured=0)
    batches = [batch for batch, _ in zip(images.test_batches(100), range(10), strict=False)]
    assert abs(right(small, batches) - right(model, batches)) <= 8


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "glue").is_dir(), reason="OPENWORK_DATA holds no glue/")
def test_minilm_keeps_its_agreement_with_people() -> None:
    model, pairs, tokenize = models.resolve("minilm"), data.load("stsb"), minilm.tokenizer(48)
    batches = [tokenize(pairs.train.first[i : i + 32]) for i in range(0, 256, 32)]
    small = openwork.quantize(model, batches, batches[0], measured=0)
    with torch.inference_mode():
        before, after = (pairs.spearman(lambda some, n=n: n(*tokenize(some)), "validation") for n in (model, small))
    assert abs(before - after) < 0.01
