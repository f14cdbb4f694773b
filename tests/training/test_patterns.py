"""Every pattern from end to end: its recipe shapes a small network, whose engine computes what PyTorch does."""

import pytest
import torch
from tiny_task import TinyData, tiny_net

import openwork as ow
from openwork.constraints._padded import Padded
from openwork.recipes.recipe import Recipe
from openwork.recipes.schedule import OptimizerSettings, Schedule
from openwork.training.compress import compress


@pytest.mark.parametrize(
    ("name", "misfit", "dense"),
    [
        ("nm-2of4", "pad", 0),
        ("permuted-2of4", "pad", 0),
        ("bsp-gru", "pad", 0),
        ("block-bert", "pad", 0),
        ("gs-8x8", "pad", 0),
        ("gs-8x1", "pad", 0),
        ("darb-90", "error", 0),
        ("circulant-4", "skip", 1),
        ("unified-4x4", "error", 0),
        ("polarized-8", "error", 0),
        ("crossbar-32", "skip", 3),
        ("patdnn", "skip", 3),
        ("patdnn-group4", "skip", 3),
        ("lenet5-binary", "error", 0),
        ("lenet5-ternary", "error", 0),
        ("lenet5-joint", "error", 0),
    ],
)
def test_a_network_of_the_pattern_computes_what_pytorch_does(name: str, misfit: str, dense: int) -> None:
    """`dense` layers at most do not hold the pattern: one input channel, or no kernels."""
    recipe = Recipe.load(name)
    rules = [rule.model_copy(update={"targets": ("all",), "ignore": (), "on_misfit": misfit}) for rule in recipe.rules]
    brief = Schedule(shape_epochs=1, retrain_epochs=1, batch_size=16, optimizer=OptimizerSettings(kind="sgd"))
    recipe = recipe.model_copy(update={"rules": tuple(rules[-1:]), "schedule": brief, "steps": ()})

    model = tiny_net()
    result = compress(model, recipe, TinyData(), threads=1)
    assert [layer.violations for layer in result.layers] == [0] * 4
    assert sum(layer.constraint is None for layer in result.layers) <= dense
    assert result.sparsity > 0.2 or rules[-1].constraint.tied

    x, _ = next(iter(TinyData().test_batches(64)))
    engine = ow.compile(model.eval(), (x[:1],), threads=1, tune="off")
    with torch.no_grad():
        expected = model(x[:8])
    found = torch.from_numpy(engine(x[:8].numpy()))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_recurrent_network_of_block_columns_and_rows_computes_what_pytorch_does() -> None:
    torch.manual_seed(0)
    model = torch.nn.GRU(24, 32, num_layers=2, batch_first=True).eval()
    rule = Recipe.load("bsp-gru").rules[0]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                padded = Padded(inner=rule.constraint)
                weight.copy_(padded.project(weight))
                assert padded.violations(weight) == 0 and (weight == 0).float().mean() > 0.5, name
    x = torch.randn(1, 10, 24)
    engine = ow.compile(model, (x,), threads=1, tune="off")
    with torch.no_grad():
        expected, state = model(x)
    found = engine(x.numpy())
    for mine, theirs in zip(found, (expected, state), strict=True):
        assert (torch.from_numpy(mine) - theirs).abs().max() <= 1e-4
