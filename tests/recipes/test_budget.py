"""Budgets in recipes: amounts with their units, rules that leave the sparsity open, and mistakes in both."""

import pytest

from openwork.constraints.block import Block
from openwork.errors import RecipeError
from openwork.recipes.budget import Budget, shown
from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.rule import MAX_SPARSITY

OPEN = "rules: [{targets: all, constraint: {kind: block, shape: [4, 1]}}]\n"
FIXED = "rules: [{targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 0.5}}]\n"


@pytest.mark.parametrize(
    ("name", "amount", "limit"),
    [
        ("latency", "60%", 600),
        ("latency", "1.5 ms", 1500),
        ("latency", "20us", 20),
        ("bytes", "4 MB", 4e6),
        ("bytes", "2 KiB", 2048),
        ("bytes", 4000, 4000),
        ("macs", "12 M", 12e6),
        ("macs", 500, 500),
        ("macs", "12.5 %", 125),
    ],
)
def test_amounts_are_shares_or_have_units(name: str, amount: str | int, limit: float) -> None:
    assert Budget(**{name: amount}).limit(name, dense=1000) == limit  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{latency: 0.6}",
            r"constraints\.latency: '0\.6' is not an amount; write a share such as 60%, or .* in us",
        ),
        ("{latency: 3 MB}", r"constraints\.latency: '3 MB' is not an amount"),
        ("{bytes: lots}", r"constraints\.bytes: 'lots' is not an amount; .* in B, kB, MB"),
        ("{macs: 0%}", r"constraints\.macs: '0%' is not in \(0%, 100%\]"),
        ("{macs: 120%}", r"constraints\.macs: '120%' is not in"),
        ("{bytes: 0}", r"constraints\.bytes: '0B' is not above 0"),
        ("{method: convex}", r"constraints: no budget among bytes, macs, latency"),
        ("{latency: 60%, method: convx}", r"constraints\.method: unknown method 'convx'; did you mean convex"),
        ("{latency: 60%, ratios: [1.5]}", r"constraints\.ratios\[0\]: 1\.5 is not in \(0, 1\)"),
        ("{latncy: 60%}", r"constraints: unknown field 'latncy'; did you mean latency"),
    ],
)
def test_mistakes_in_a_budget_are_named(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.parse(f"{OPEN}constraints: {text}")


def test_a_constraint_without_sparsity_is_open_up_to_its_bound() -> None:
    recipe = Recipe.parse(f"{OPEN}constraints: {{latency: 60%}}")
    (rule,) = recipe.rules
    assert rule.open and rule.constraint == Block(shape=(4, 1), sparsity=MAX_SPARSITY)
    assert Recipe.parse(recipe.dump()) == recipe
    bounded = Rule(targets="all", constraint={"kind": "block", "shape": (4, 1)}, min_sparsity=0.5, max_sparsity=0.9)
    assert bounded.constraint == Block(shape=(4, 1), sparsity=0.9) and bounded.min_sparsity == 0.5
    assert Rule.model_validate(bounded.model_dump(mode="json")) == bounded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OPEN, r"constraints: rules\[0\]\.constraint has no sparsity; give it one, or a budget here"),
        (f"{FIXED}constraints: {{bytes: 10%}}", r"constraints: every rule has a sparsity; leave it out"),
        (
            f"{OPEN}constraints: {{bytes: 10%}}\nsteps: [{{rules: [{{targets: all, constraint: {{kind: filter}}}}]}}]",
            r"constraints: rules of a step have no sparsity; give them one",
        ),
        (
            "rules: [{targets: all, max_sparsity: 0.9, constraint: {kind: filter, sparsity: 0.5}}]",
            r"rules\[0\]: sparsity 0\.5 is fixed; leave it out",
        ),
        (
            "rules: [{targets: all, min_sparsity: 0.9, max_sparsity: 0.5, constraint: {kind: filter}}]",
            r"rules\[0\]: min_sparsity 0\.9 is above max_sparsity 0\.5",
        ),
        (
            "rules: [{targets: all, max_sparsity: 0.5, constraint: {kind: nm}}]",
            r"rules\[0\]: nm has no sparsity that a budget could pick",
        ),
        (
            "rules: [{targets: all, max_sparsity: 2, constraint: {kind: filter}}]",
            r"rules\[0\]\.constraint\.sparsity: 2 is not in \(0, 1\)",
        ),
    ],
)
def test_contradictions_of_rules_and_budget_are_named(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.parse(text)


def test_amounts_are_shown_with_a_fitting_unit() -> None:
    assert [shown("bytes", b) for b in (12, 4_100_000)] == ["12 B", "4.1 MB"]
    assert [shown("macs", m) for m in (0, 1500)] == ["0", "1.5 k"]
    assert [shown("latency", t) for t in (0.5, 340, 1250)] == ["0.5 us", "340 us", "1.25 ms"]
    assert [shown("bytes", b) for b in (999_499, 999_700, 1000, 2.5e12)] == ["999 kB", "1 MB", "1 kB", "2500 GB"]
    assert [shown("macs", m) for m in (999, 999.7, 999_700_000)] == ["999", "1 k", "1 G"]
    assert [shown("latency", t) for t in (999.7, 999_700, 2.5e6)] == ["1 ms", "1 s", "2.5 s"]
