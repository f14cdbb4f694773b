"""A recipe that purifies between shaping and retraining."""

import pytest
import torch
from tiny_task import TinyData, tiny_net
from torch import nn

from openwork.errors import RecipeError
from openwork.recipes.recipe import Recipe
from openwork.slimming.slim import slim
from openwork.training.compress import compress
from openwork.training.progress import Silent
from openwork.training.shaper import Shaper

RECIPE = """
rules:
  - {targets: [conv2, fc1], constraint: {kind: KIND}}
purify: {share: 0.1, emptiness: 1.0, units: [channel]}
solver: {kind: magnitude}
schedule: {shape_epochs: 1, retrain_epochs: 2, batch_size: 16, optimizer: {kind: sgd, weight_decay: 0.01}}
"""


def recipe(kind: str) -> Recipe:
    return Recipe.parse(RECIPE.replace("KIND", kind))


def test_what_was_emptied_stays_empty_through_retraining() -> None:
    asked = recipe("column, sparsity: 0.5")
    plain = compress(tiny_net(), asked.model_copy(update={"purify": None}), TinyData(), threads=1)
    found = compress(tiny_net(), asked, TinyData(), threads=1)
    assert [layer.violations for layer in found.layers] == [0] * 4
    assert found.nonzero < plain.nonzero
    conv1, conv2 = found.model.conv1.weight, found.model.conv2.weight
    read = conv2.transpose(0, 1).flatten(1).any(1)
    assert not read.all() and torch.equal(conv1.flatten(1).any(1), read)

    (x, _) = next(iter(TinyData().test_batches(64)))
    slimmed = slim(found.model.eval(), x, recipe=asked)
    assert slimmed.rows[0].after[0] == slimmed.rows[1].after[1] == int(read.sum())
    with torch.no_grad():
        assert (slimmed.model(x) - found.model(x)).abs().max() <= 1e-5


def test_a_constraint_that_is_more_than_zeros_cannot_be_purified() -> None:
    with pytest.raises(RecipeError, match=r"layer 'conv2': Circulant.* cannot be purified; leave 'purify' out"):
        compress(tiny_net(), recipe("circulant, block: 4"), TinyData(), threads=1)


def test_steps_that_only_zero_weights_are_purified_and_later_ones_hold_that() -> None:
    steps = """
steps:
  - {}
  - {rules: [{targets: [conv2, fc1], constraint: {kind: levels, bits: 4}}]}
"""
    messages: list[str] = []

    class Told(Silent):
        def message(self, text: str) -> None:
            messages.append(text)

    asked = Recipe.parse(RECIPE.replace("KIND", "column, sparsity: 0.5") + steps)
    found = compress(tiny_net(), asked, TinyData(), threads=1, progress=Told())
    assert sum("purified" in text for text in messages) == 1
    assert not found.model.conv2.weight.transpose(0, 1).flatten(1).any(1).all()


def test_zeros_of_ones_own_are_held_after_tighten() -> None:
    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rules = Recipe.parse("rules: [{targets: all, constraint: {kind: unstructured, sparsity: 0.5}}]")
    shaper = Shaper(model, rules, optimizer)
    shaper.harden()
    with torch.no_grad():
        model.weight[2] = 0
    shaper.tighten()
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        shaper.step()
    assert not model.weight[2].any() and 0 < int((model.weight != 0).sum()) <= 32
