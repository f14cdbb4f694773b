"""Published weights on real data, in PyTorch and in the engine: the same figures, which are those published."""

import os
from pathlib import Path

import pytest
import torch

import openwork
from openwork import data, models
from openwork.models import minilm

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))
LENGTH = 48
"""Tokens; the longest sentence of the test split has 46."""

photographs = pytest.mark.skipif(
    not (REAL / "imagenet_compatible").is_dir(), reason="OPENWORK_DATA holds no imagenet_compatible/"
)
sentences = pytest.mark.skipif(not (REAL / "glue").is_dir(), reason="OPENWORK_DATA holds no glue/")


def right_of(run, set_of_images, count=1000):
    """How many of the first `count` images `run` puts into their class."""
    right = seen = 0
    for x, y in set_of_images.test_batches(50):
        with torch.inference_mode():
            right += int((run(x).argmax(1) == y).sum())
        seen += len(y)
        if seen >= count:
            break
    return right


@photographs
def test_efficientnet_lite0_knows_what_is_on_photographs():
    # The first 50 images take two seconds; all of them are in the slow test below.
    assert right_of(models.resolve("efficientnet_lite0"), data.resolve("imagenet_compatible"), 50) == FIRST


# What the package's own network (efficientnet-lite-pytorch 0.1.0) gives on the same pixels, whose outputs are equal bit
# for bit; with the centre crop of its training code it is 893, since the photographs are cropped already.
FIRST, ALL, CROPPED = 48, 917, 893


@pytest.mark.slow
@photographs
@pytest.mark.parametrize(("crop", "right"), [(1.0, ALL), (0.875, CROPPED)])
def test_efficientnet_lite0_has_its_accuracy(crop, right):
    assert right_of(models.resolve("efficientnet_lite0"), data.resolve("imagenet_compatible", crop=crop)) == right


@pytest.mark.slow
@photographs
def test_the_engine_has_the_accuracy_of_efficientnet_lite0():
    engine = openwork.compile(
        models.resolve("efficientnet_lite0"), models.example_inputs("efficientnet_lite0", 2), threads=2, tune="off"
    )
    assert right_of(engine, data.resolve("imagenet_compatible")) == ALL


@pytest.fixture(scope="module")
def stsb():
    return data.load("stsb")


@pytest.mark.slow
@sentences
def test_minilm_agrees_with_people_as_published_and_the_engine_with_minilm(stsb):
    # 82.03 is the figure of all-MiniLM-L6-v2 that the MTEB benchmark lists for STSBenchmark.
    model, tokenize = models.resolve("minilm"), minilm.tokenizer(LENGTH)
    engine = openwork.compile(model, models.example_inputs("minilm", 2, length=LENGTH), threads=2, tune="off")
    with torch.inference_mode():
        published = stsb.spearman(lambda some: model(*tokenize(some)))
    assert round(100 * published, 2) == 82.03
    assert stsb.spearman(lambda some: engine(*tokenize(some))) == pytest.approx(published, abs=2e-5)
