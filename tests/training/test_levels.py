"""Nested sparsity from recipe to engine: levels learn together, lie in each other and come out as networks of their
own."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from tiny_task import TinyData, TinyNet, tiny_net
from torch.nn import functional

import openwork
from openwork.constraints.nested import Nested
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.schedule import Rate, Schedule
from openwork.training.compress import compress
from openwork.training.progress import Silent
from openwork.training.shaper import Shaper

NESTED = Nested(of=Unstructured(sparsity=0.5), sparser=(0.75, 0.9))


def recipe(retrain: int = 4) -> Recipe:
    schedule = Schedule(
        dense_epochs=4, shape_epochs=2, retrain_epochs=retrain, batch_size=16, dense_rate=Rate(peak=0.05)
    )
    return Recipe(rules=[Rule(targets="all", constraint=NESTED)], schedule=schedule)


def test_levels_come_out_as_networks_inside_each_other(tmp_path: Path) -> None:
    model = tiny_net()
    result = compress(model, recipe(), TinyData(), tmp_path / "run", threads=1)
    assert len(result.levels) == 2
    networks = [result.model, *(level.model for level in result.levels)]
    for name, weight in result.model.named_parameters():
        if weight.dim() < 2:
            continue
        for wider, narrower in itertools.pairwise(networks):
            a, b = (dict(n.named_parameters())[name].detach() for n in (wider, narrower))
            assert torch.equal(b, a * (b != 0)) and int((b != 0).sum()) < int((a != 0).sum())
    assert result.nonzero > result.levels[0].nonzero > result.levels[1].nonzero
    assert result.levels[1].nonzero == pytest.approx(0.1 * result.weights, abs=4)

    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [level["nonzero"] for level in content["levels"]] == [level.nonzero for level in result.levels]
    again = compress(tiny_net(), recipe(), TinyData(), tmp_path / "run", threads=1)
    for level, recalled in zip(result.levels, again.levels, strict=True):
        assert recalled.accuracy == level.accuracy
        assert all(
            torch.equal(a, b)
            for a, b in zip(level.model.state_dict().values(), recalled.model.state_dict().values(), strict=True)
        )

    x, _ = next(iter(TinyData().test_batches(64)))
    engine = openwork.compile(networks[0].eval(), x[:1], levels=networks[1:], threads=1, tune="off")
    for number, network in enumerate(networks, 1):
        with torch.no_grad():
            assert torch.allclose(engine(x, level=number), network.eval()(x), atol=1e-4)


def test_training_through_levels_serves_the_sparse_one() -> None:
    """Against the same run whose retraining knows one level only: the sparsest level must be better for it."""
    plain = Recipe(rules=[Rule(targets="all", constraint=NESTED.of)], schedule=recipe().schedule)
    together, alone = tiny_net(), tiny_net()
    result = compress(together, recipe(), TinyData(), threads=1)
    compress(alone, plain, TinyData(), threads=1)
    cut = Unstructured(sparsity=0.9)
    with torch.no_grad():
        for weight in alone.parameters():
            if weight.dim() > 1:
                weight.copy_(cut.project(weight))
    x, y = next(iter(TinyData().test_batches(64)))
    with torch.no_grad():
        losses = [float(functional.cross_entropy(m.eval()(x), y)) for m in (result.levels[-1].model, alone)]
    assert losses[0] < losses[1]


class Stop(Silent):
    def epoch_ended(self, line: dict[str, object]) -> None:
        if line["epoch"] == 7:
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_the_same_levels(tmp_path: Path) -> None:
    whole = compress(tiny_net(), recipe(), TinyData(), threads=1)
    with pytest.raises(KeyboardInterrupt):
        compress(tiny_net(), recipe(), TinyData(), tmp_path / "run", threads=1, progress=Stop())
    resumed = compress(tiny_net(), recipe(), TinyData(), tmp_path / "run", threads=1)
    for a, b in zip(whole.levels, resumed.levels, strict=True):
        assert a.accuracy == b.accuracy
        assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))


def shaped() -> tuple[TinyNet, Shaper]:
    model = tiny_net()
    shaper = Shaper(model, recipe())
    shaper.harden()
    return model, shaper


def test_gradients_are_of_the_weights_that_a_level_has() -> None:
    model, shaper = shaped()
    x, y = next(iter(TinyData().test_batches(16)))
    weights = [m.weight for m in shaper.matches]
    before = [w.detach().clone() for w in weights]
    sums = [torch.zeros_like(w) for w in weights]
    for level in (1, 2, 3):
        masks = [NESTED.levels(w)[level - 1] for w in before]
        with shaper.at_level(level):
            assert all(torch.equal(w, b * m) for w, b, m in zip(weights, before, masks, strict=True))
            loss = functional.cross_entropy(model(x), y)
            found = torch.autograd.grad(loss, weights, retain_graph=True)
            loss.backward()
        sums = [s + (g * m if level > 1 else g) for s, g, m in zip(sums, found, masks, strict=True)]
    for w, b, s in zip(weights, before, sums, strict=True):
        assert torch.equal(w, b) and torch.allclose(w.grad, s, atol=1e-6)


def test_an_error_inside_leaves_the_weights_as_they_were() -> None:
    model, shaper = shaped()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="stop"), shaper.at_level(3):
        raise RuntimeError("stop")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(UsageError, match=r"level=4 is not in 1\.\.3"), shaper.at_level(4):
        pass
