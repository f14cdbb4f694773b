"""Steps of a recipe: how they are written, the plain recipes they become, and plans that cannot be followed."""

from pathlib import Path

import pytest
import torch
from torch import nn

from openwork.constraints.unstructured import Unstructured
from openwork.errors import RecipeError
from openwork.recipes.match import match
from openwork.recipes.recipe import Recipe, Rule, Step
from openwork.recipes.schedule import Rate, Schedule
from openwork.recipes.stages import Stage, stages
from openwork.recipes.steps import Ladder
from openwork.solvers.admm import ADMM
from openwork.solvers.magnitude import Magnitude

SIZES = {"a": 200, "b": 800, "c": 1000}


class Chain(nn.Module):
    """Layers of 200, 800 and 1,000 weights, 2,000 together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(10, 20), nn.Linear(20, 40), nn.Linear(40, 25)


def recipe(text: str, rules: str = "[{targets: all, constraint: {kind: unstructured, sparsity: 0.9}}]") -> Recipe:
    return Recipe.parse(f"rules: {rules}\nsteps: {text}")


def kept(stage: Stage, model: nn.Module) -> dict[str, int]:
    """How many weights the rules of a stage leave in each layer that they hit."""
    found = {m.name: (m.weight, m.constraint) for m in match(stage.recipe, model)}
    return {name: int(c.mask(w).sum()) for name, (w, c) in found.items() if c is not None}


def test_a_recipe_without_steps_is_its_only_stage() -> None:
    plain = Recipe(rules=[Rule(targets="all", constraint=Unstructured(sparsity=0.9))])
    assert stages(plain, Chain()) == (Stage(plain),)
    assert stages(plain.model_copy(update={"steps": (Step(),)}), Chain()) == (Stage(plain),)


def test_budgets_are_counts_of_all_weights_of_a_layer() -> None:
    model = Chain()
    found = stages(recipe("[{keep: {a: 120, b: 333, c: 999}}, {sparsity: {'re:[ab]': 0.75}}, {}]"), model)
    assert [kept(stage, model) for stage in found] == [
        {"a": 120, "b": 333, "c": 999},
        {"a": 50, "b": 200, "c": 100},
        {"a": 20, "b": 80, "c": 100},
    ]


def test_every_count_is_met_exactly() -> None:
    model = Chain()
    for count in range(1, 1000, 7):
        (first, _) = stages(recipe(f"[{{keep: {{c: {count}, a: 200, b: 800}}}}, {{keep: {{c: 1}}}}]"), model)
        assert kept(first, model) == {"c": count}, "a and b keep everything, so no rule is left for them"


def test_rates_are_of_all_layers_together_and_scale_densities_geometrically() -> None:
    rules = (
        "[{targets: a, constraint: {kind: unstructured, sparsity: 0.5}},"
        " {targets: [b, c], constraint: {kind: unstructured, sparsity: 0.99}}]"
    )
    model = Chain()
    found = stages(recipe("{rates: [3, 6, 9]}", rules), model)
    counts = [kept(stage, model) for stage in found]
    assert [2000 / sum(c.values()) for c in counts] == pytest.approx([3, 6, 9, 2000 / 118], rel=0.02)
    for stage in found:
        density = {m.name: 1 - m.constraint.sparsity for m in match(stage.recipe, model)}  # type: ignore[union-attr]
        exponent = torch.tensor(density["a"]).log() / torch.tensor(0.5).log()
        assert density["b"] == density["c"] == pytest.approx(0.01 ** float(exponent), rel=1e-4)


def test_the_short_forms_are_lists() -> None:
    assert recipe("{count: 2, freeze: 0.5}").steps == (Step(share=0.5, freeze=0.5), Step(freeze=0.5))
    assert recipe("{rates: [15, 18]}").steps == (Step(rate=15), Step(rate=18), Step())
    assert [step.rate for step in Ladder(increment=3, to=10).steps()] == [3, 6, 9, None]
    assert [step.rate for step in Ladder(increment=0.5, to=2).steps()] == [1.5, 2, None], "a rate of 1 prunes nothing"
    half = stages(recipe("{count: 2}"), Chain())[0]
    assert kept(half, Chain())["c"] == round(1000 * 0.1**0.5)


def test_a_step_has_rules_a_solver_and_a_schedule_of_its_own() -> None:
    found = stages(
        Recipe.parse(
            """
            rules: [{targets: [a, b], constraint: {kind: filter, sparsity: 0.5}}]
            solver: {kind: admm, rho: 0.5}
            schedule: {dense_epochs: 3, shape_epochs: 4, retrain_epochs: 5, batch_size: 7}
            steps:
              - rules: [{targets: c, constraint: {kind: column, sparsity: 0.25}}]
                solver: {kind: magnitude}
                shape_epochs: 1
                restarts: 2
                retrain_rate: {peak: 0.5}
              - {}
            """
        ),
        Chain(),
    )
    first, second = (stage.recipe for stage in found)
    assert [r.targets for r in first.rules] == [("c",)] and [r.targets for r in second.rules] == [("a", "b")]
    assert first.solver == Magnitude() and second.solver == ADMM(rho=0.5)
    plain = Schedule(dense_epochs=3, shape_epochs=4, retrain_epochs=5, batch_size=7)
    assert first.schedule == plain.model_copy(update={"shape_epochs": 1, "restarts": 2, "retrain_rate": Rate(peak=0.5)})
    assert second.schedule == plain.model_copy(update={"dense_epochs": 0}), "the network is trained by then"


def test_layers_that_are_padded_or_skipped_stay_so() -> None:
    rules = "[{targets: all, on_misfit: %s, constraint: {kind: block, shape: [8, 1], sparsity: 0.75}}]"
    padded, skipped = (stages(recipe("[{sparsity: 0.5}, {}]", rules % how), Chain()) for how in ("pad", "skip"))
    assert [str(m.constraint).endswith("padded") for m in match(padded[0].recipe, Chain())] == [True, False, True]
    found = match(skipped[0].recipe, Chain())
    assert [m.constraint is None for m in found] == [True, False, True] and "out = 20" in found[0].note


@pytest.mark.parametrize("text", ["[{keep: {a: 3}}, {freeze: 0.5, solver: {kind: magnitude}}]", "{count: 3}", "[]"])
def test_steps_survive_a_dump(text: str, tmp_path: Path) -> None:
    found = recipe(text).model_copy(update={"candidates": 3, "floor": 0.9})
    assert Recipe.parse(found.dump(), name="custom") == found


MISTAKES = {
    "growth": ("[{keep: {a: 10}}, {keep: {a: 11}}]", r"^steps\[1\]: layer 'a' would keep 11 weights after 10 in "
               r"steps\[0\]; later steps may keep as many or fewer$"),
    "growth to the rules": ("[{keep: {a: 10}}, {}]", r"^steps\[1\]: layer 'a' would keep 20 weights after 10"),
    "growth after a pause": ("[{sparsity: 0.95}, {rules: [{targets: a, constraint: {kind: nm, n: 1, m: 2}}]}, {}]",
                             r"^steps\[2\]: layer 'a' would keep 20 weights after 10 in steps\[0\]"),
    "too many": ("[{keep: {a: 201}}]", r"^steps\[0\]\.keep: layer 'a' has 200 weights, it cannot keep 201; lower it$"),
    "two budgets": ("[{keep: {all: 100, a: 50}}]",
                    r"^steps\[0\]: layer 'a' has keep 100 \('all'\) and keep 50 \('a'\); give it one budget$"),
    "budgets of two kinds": ("[{keep: {a: 100}, sparsity: {a: 0.3}}]", r"layer 'a' has keep 100 .* and sparsity 0\.3"),
    "no such layer": ("[{keep: {d: 100}}]", r"^steps\[0\]\.keep: 'd' matches no convolution.*known: a, b, c"),
    "no such layer in rules": ("[{rules: [{targets: d, constraint: {kind: filter, sparsity: 0.5}}]}]",
                               r"^steps\[0\]\.rules\[0\]\.targets: 'd' matches no"),
    "beyond the rules": ("[{rate: 11}, {}]", r"^steps\[0\]\.rate: 11 is beyond the rules' own 10; lower it"),
    "nothing to do": ("[{keep: {a: 200, b: 800, c: 1000}}]", r"^steps\[0\] prunes nothing: it keeps every weight"),
    "tied weights": ("[{rules: [{targets: c, constraint: {kind: unified, shape: [5, 5], unified: 0.5}}]}, {}]",
                     r"^steps\[1\]: layer 'c' cannot be unstructured after unified in steps\[0\], since .* tied"),
    "zeros that move": ("[{}, {rules: [{targets: a, constraint: {kind: levels, bits: 1, zeros: level}}]}]",
                        r"^steps\[1\]: layer 'a' cannot be levels after unstructured in steps\[0\], since zeros would "
                        r"move to levels; set zeros of levels to 'stay'$"),
    "zeros that move later": (
        "[{rules: [{targets: a, constraint: {kind: and, of: [{kind: filter, sparsity: 0.5}, "
        "{kind: levels, bits: 2}]}}]}, "
        "{rules: [{targets: a, constraint: {kind: levels, bits: 1, zeros: level}}]}]",
        r"^steps\[1\]: layer 'a' cannot be levels after and in steps\[0\], since zeros would move"),
    "sparser than levels": ("[{rules: [{targets: a, constraint: {kind: levels, bits: 2}}]}, {}]",
                            r"^steps\[1\]: layer 'a' cannot be unstructured after levels in steps\[0\], .* are tied"),
    "frozen in the end": ("[{freeze: 0.5, rules: [{targets: c, constraint: {kind: levels, bits: 2}}]}]",
                          r"^steps\[0\]\.freeze: layer 'c' ends on Levels\(bits=2.*; a share of it can freeze"),
    "frozen on other levels": ("[{freeze: 0.5, rules: [{targets: c, constraint: {kind: levels, bits: 4}}]}, "
                               "{rules: [{targets: c, constraint: {kind: levels, bits: 2}}]}]",
                               r"^steps\[0\]\.freeze: layer 'c' ends on Levels\(bits=2"),
    "frozen before levels": ("[{freeze: 0.5}, {rules: [{targets: a, constraint: {kind: levels, bits: 2}}]}]",
                             r"^steps\[0\]\.freeze: layer 'a' ends on Levels"),
    "frozen codebook": ("[{freeze: 0.5, rules: [{targets: c, constraint: {kind: levels, bits: 2, scheme: codebook}}]}, "
                        "{rules: [{targets: c, constraint: {kind: levels, bits: 2, scheme: codebook}}]}]",
                        r"^steps\[0\]\.freeze: .* no codebook"),
    "frozen ties": ("[{freeze: 0.5, rules: [{targets: c, constraint: {kind: unified, shape: [5, 5], unified: 0.5}}]}]",
                    r"^steps\[0\]: layer 'c' has tied weights \(unified\), none can freeze; drop freeze$"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_plans_that_cannot_be_followed_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        stages(recipe(text), Chain())
    assert "\n" not in str(caught.value)


def test_a_budget_for_what_has_no_sparsity_or_no_rule_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"steps\[0\]: nm of layer 'a' has no sparsity that keep, .*rules of its own"):
        stages(recipe("{count: 2}", "[{targets: a, constraint: {kind: nm, n: 1, m: 2}}]"), Chain())
    with pytest.raises(RecipeError, match=r"steps\[0\]\.keep: no rule prunes 'c'; add a rule for it, or drop it here"):
        stages(recipe("[{keep: {c: 5}}]", "[{targets: a, constraint: {kind: filter, sparsity: 0.5}}]"), Chain())


WORDS = {
    "count of nothing": ("[{keep: {a: 0}}]", r"steps\[0\]\.keep\.a: 0: input should be greater than or equal to 1$"),
    "share of everything": ("[{sparsity: 1}]", r"steps\[0\]\.sparsity\.all: 1 is not in \(0, 1\)$"),
    "rate and count": (
        "[{rate: 3, keep: {a: 5}}]",
        r"steps\[0\]: rate and keep each set the budget of the same layers",
    ),
    "two short forms": ("{count: 3, rates: [2]}", r"steps: give one of \{count: N\}"),
    "no end": ("{increment: 3}", r"steps: give one of .*\{increment: X, to: Y\}"),
    "falling": ("{rates: [5, 4]}", r"steps: rates 5, 4 must rise from step to step$"),
    "unknown": ("[{keeps: {a: 5}}]", r"steps\[0\]: unknown field 'keeps'; did you mean keep\?"),
    "unknown in short": ("{counts: 3}", r"steps: unknown field 'counts'; did you mean count\?"),
    "no steps": ("3", r"steps\[0\]: 3: input should be"),
    "candidates": ("[]\ncandidates: 0", r"candidates: 0: input should be greater than or equal to 1$"),
    "floor": ("[]\nfloor: 99", r"floor: 99: input should be less than 1$"),
}


@pytest.mark.parametrize(("text", "words"), WORDS.values(), ids=WORDS.keys())
def test_mistakes_name_field_value_and_limit(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        recipe(text)
    assert "\n" not in str(caught.value)
