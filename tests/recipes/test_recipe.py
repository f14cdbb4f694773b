"""Recipes as YAML: what is written is what is read, and every mistake names its field."""

from itertools import pairwise
from pathlib import Path

import pytest

from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.unstructured import Unstructured
from openwork.errors import RecipeError, UsageError
from openwork.plugins import every
from openwork.recipes.recipe import Recipe, Rule, builtin_names
from openwork.recipes.schedule import Distillation, OptimizerSettings, Rate, Schedule
from openwork.solvers.admm import ADMM
from openwork.solvers.base import Solver
from openwork.solvers.magnitude import Magnitude

RULE = "{targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 0.5}}"


def test_yaml_is_read_into_the_objects_it_names() -> None:
    recipe = Recipe.parse(
        """
        rules:
          - targets: "re:layer.*conv"
            constraint: {kind: block, shape: [4, 1], sparsity: 0.9}
          - targets: [linear, stem]
            ignore: head
            constraint: {kind: unstructured, sparsity: 0.5}
            on_misfit: skip
        solver: {kind: magnitude, gradual: true}
        schedule:
          shape_epochs: 3
          distillation: {weight: 0.25}
        """,
        name="mine",
    )
    assert recipe == Recipe(
        name="mine",
        rules=[
            Rule(targets="re:layer.*conv", constraint=Block(shape=(4, 1), sparsity=0.9)),
            Rule(targets=("linear", "stem"), ignore="head", constraint=Unstructured(sparsity=0.5), on_misfit="skip"),
        ],
        solver=Magnitude(gradual=True),
        schedule=Schedule(shape_epochs=3, distillation=Distillation(weight=0.25)),
    )


def test_dump_is_readable_yaml_with_every_field() -> None:
    recipe = Recipe(rules=[Rule(targets="all", constraint=Block(shape=(4, 1), sparsity=0.5))], solver=ADMM(rho=0.5))
    assert recipe.dump().splitlines()[:24] == [
        "rules:",
        "- targets:",
        "  - all",
        "  constraint:",
        "    kind: block",
        "    sparsity: 0.5",
        "    shape:",
        "    - 4",
        "    - 1",
        "  ignore: []",
        "  on_misfit: error",
        "  min_sparsity: null",
        "  max_sparsity: null",
        "solver:",
        "  kind: admm",
        "  rho: 0.5",
        "  policy: growing",
        "  growth: 1.0",
        "  mu: 10.0",
        "  tau: 2.0",
        "  floor: 1.0e-06",
        "  cap: 1000.0",
        "  rescale_dual: false",
        "schedule:",
    ]


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_recipes_load_and_survive_a_dump(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert Recipe.parse(recipe.dump()) == recipe
    path = tmp_path / "copy.yaml"
    path.write_text(recipe.dump())
    assert Recipe.load(path) == recipe
    assert Recipe.load(recipe) is recipe


def test_every_constraint_and_solver_survives_a_dump_inside_a_recipe() -> None:
    for kind in every("constraints", Constraint).values():
        for example in kind.EXAMPLES:
            for method in every("solvers", Solver).values():
                for settings in method.EXAMPLES:
                    recipe = Recipe(rules=[Rule(targets="all", constraint=kind(**example))], solver=method(**settings))
                    assert Recipe.parse(recipe.dump()) == recipe


MISTAKES = {
    "sparsity": (
        "rules: [{targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 1.2}}]",
        r"rules\[0\]\.constraint\.sparsity: 1\.2 is not in \(0, 1\)$",
    ),
    "kind": (
        "rules: [{targets: all, constraint: {kind: blok, shape: [4, 1], sparsity: 0.5}}]",
        r"rules\[0\]\.constraint: unknown constraint 'blok'; did you mean block, block_row\? known: and, block, ",
    ),
    "no kind": (
        "rules: [{targets: all, constraint: {sparsity: 0.5}}]",
        r"rules\[0\]\.constraint: .*should be a mapping with a 'kind' \(one of and, block",
    ),
    "unknown field of a plug-in": (
        "rules: [{targets: all, constraint: {kind: block, shap: [4, 1], sparsity: 0.5}}]",
        r"rules\[0\]\.constraint: unknown field 'shap'; did you mean shape\?",
    ),
    "block side": (
        "rules: [{targets: all, constraint: {kind: block, shape: [4, 0], sparsity: 0.5}}]",
        r"rules\[0\]\.constraint\.shape\[1\]: 0: input should be greater than or equal to 1$",
    ),
    "no constraint": ("rules: [{targets: all}]", r"rules\[0\]\.constraint: this field is missing$"),
    "no rules": ("rules: []", r"rules: \[\]: tuple should have at least 1 item"),
    "no rules at all": ("solver: {kind: admm}", r"rules: this field is missing$"),
    "misfit": (
        "rules: [{targets: all, on_misfit: ignore, constraint: {kind: filter, sparsity: 0.5}}]",
        r"rules\[0\]\.on_misfit: 'ignore': input should be 'error', 'pad' or 'skip'$",
    ),
    "solver": (
        f"rules: [{RULE}]\nsolver: {{kind: admm, rho: -1}}",
        r"solver\.rho: -1: input should be greater than 0$",
    ),
    "field of the schedule": (
        f"rules: [{RULE}]\nschedule: {{batchsize: 3}}",
        r"schedule: unknown field 'batchsize'; did you mean batch_size\?",
    ),
    "value of the schedule": (
        f"rules: [{RULE}]\nschedule: {{batch_size: 0}}",
        r"schedule\.batch_size: 0: input should be greater than or equal to 1$",
    ),
    "rate": (
        f"rules: [{RULE}]\nschedule: {{shape_rate: {{peak: .nan}}}}",
        r"schedule\.shape_rate\.peak: nan: input should be a finite number$",
    ),
    "nesterov": (
        f"rules: [{RULE}]\nschedule: {{optimizer: {{nesterov: true, momentum: 0}}}}",
        r"schedule\.optimizer: nesterov needs momentum > 0; raise momentum or drop nesterov$",
    ),
    "not YAML": ("rules: [", r"broken\.yaml is not YAML: .*line 1"),
    "no mapping": ("- 1", r"broken\.yaml should be a mapping with 'rules'.* not list$"),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_name_field_value_and_limit_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_mistakes_in_python_are_ours_too() -> None:
    with pytest.raises(UsageError, match=r"^Block\.sparsity: 1\.2 is not in \(0, 1\)$"):
        Block(shape=(4, 1), sparsity=1.2)
    with pytest.raises(RecipeError, match=r"^Rule\.constraint: 3 should be a mapping"):
        Rule(targets="all", constraint=3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"^Recipe\.rules: this field is missing$"):
        Recipe()  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"^Schedule\.seed: -1"):
        Schedule(seed=-1)


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"unknown recipe 'block4x1-8'; did you mean block4x1-80.* known: .*demo.*YAML"
    ):
        Recipe.load("block4x1-8")
    with pytest.raises(RecipeError, match=r"cannot read recipe .*none\.yaml: No such file"):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"cannot read recipe .*binary: not a text file"):
        Recipe.load(tmp_path / "binary")


def test_rates_warm_up_and_decay() -> None:
    cosine = Rate(peak=0.1, decay="cosine", final=0.1, warmup_epochs=0.5)
    rates = [cosine.at(step, 100, 10) for step in range(100)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5] == pytest.approx(0.1) and rates[-1] == pytest.approx(0.01, rel=0.02)
    assert all(a >= b for a, b in pairwise(rates[5:]))
    middle = 5 + 95 / 2
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx(0.055, rel=0.02)
    step = Rate(peak=1.0, decay="step", milestones=(0.5, 0.75), factor=0.1)
    assert [round(step.at(s, 8, 8), 4) for s in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert Rate(peak=0.3).at(7, 8, 8) == 0.3
    assert Rate(peak=0.3, warmup_epochs=5).at(3, 4, 4) == 0.3


def test_the_recipe_for_cifar_fits_its_promise() -> None:
    schedule = Recipe.load("block4x1-80").schedule
    assert schedule.dense_epochs + schedule.shape_epochs + schedule.retrain_epochs <= 30
    assert OptimizerSettings().kind == "sgd"
