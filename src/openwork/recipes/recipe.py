"""A recipe: rules that say which layers obey which constraint, the solver that gets them there, and the schedule."""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from .. import plugins
from ..config import Config, explain
from ..errors import RecipeError
from ..solvers.admm import ADMM
from ..solvers.base import Solver
from .budget import Budget
from .purification import Purification
from .quantization import Quantization
from .rule import Rule
from .schedule import Schedule
from .steps import Step, listed

__all__ = ["Budget", "Quantization", "Recipe", "Rule", "Schedule", "Step", "builtin_names"]

_BUILTIN = Path(__file__).parent / "builtin"


class Recipe(Config):
    """Everything that decides how a model is compressed.

    >>> recipe = Recipe.load("block4x1-80")
    >>> Recipe.parse(recipe.dump()) == recipe
    True
    """

    ERROR = RecipeError

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    """Which layers obey which constraint; later rules win."""
    solver: Annotated[SerializeAsAny[Solver], BeforeValidator(Solver.parse)] = ADMM()
    """The method of the shape phase."""
    schedule: Schedule = Schedule()
    """Epochs, rates, losses and precision; with `steps`, of each step."""
    steps: Annotated[tuple[Step, ...], BeforeValidator(listed)] = ()
    """Partial prunings on the way to the rules, in order: a list of `Step`, or in short `{count: 5}`, `{rates: [15, 18,
    21]}` or `{increment: 3, to: 24}`. Empty: one step, the rules as they are."""
    candidates: Annotated[int, Field(ge=1)] = 1
    """How many partial models are kept. Each step starts from every one of them; the result of best validation accuracy
    joins them, and takes the place of the one it came from once there are so many."""
    floor: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Lowest validation accuracy that a step may end with, in (0, 1): below it the run ends, and the result is the
    model of the step before."""
    purify: Purification | None = None
    """What is emptied for good between shaping and retraining, beyond what the constraints ask for; in steps whose
    constraints are zeros in their places."""
    quantize: Annotated[Quantization | None, Field(validate_default=True)] = None
    """Bits of weights and of layers' inputs after the last step; the schedule has the epochs and the rate."""
    constraints: Annotated[Budget | None, Field(validate_default=True)] = None
    """What the whole network may cost; picks the sparsity of rules whose constraint has none."""
    name: str = "custom"
    """What reports call the recipe."""

    @field_validator("quantize")
    @classmethod
    def _epochs_are_of_something(cls, found: Quantization | None, info: ValidationInfo) -> Quantization | None:
        epochs = info.data["schedule"].quantize_epochs if "schedule" in info.data else 0
        if found is None and epochs:
            raise ValueError(
                f"schedule.quantize_epochs = {epochs} and nothing is quantized; write quantize: {{}}, or drop them"
            )
        if found is not None and found.weights is None and found.activations is None:
            raise ValueError("neither weights nor activations have bits; give one of them, or leave quantize out")
        return found

    @field_validator("constraints")
    @classmethod
    def _picks_what_is_open(cls, budget: Budget | None, info: ValidationInfo) -> Budget | None:
        rules = info.data.get("rules", ())
        first = next((index for index, rule in enumerate(rules) if rule.open), None)
        if budget is None and first is not None:
            raise ValueError(
                f"rules[{first}].constraint has no sparsity; give it one, or a budget here, such as {{latency: 60%}}"
            )
        if any(rule.open for step in info.data.get("steps", ()) for rule in step.rules or ()):
            raise ValueError("rules of a step have no sparsity; give them one: a budget picks those of the recipe")
        if budget is not None and rules and first is None:
            raise ValueError("every rule has a sparsity; leave it out of the constraints for which the budget picks it")
        return budget

    @classmethod
    def load(cls, source: Self | str | Path) -> Self:
        """A built-in recipe by its name, or the recipe in a YAML file; a recipe is returned as it is.

        Raises RecipeError if there is neither, with the known names, or if the content is wrong, with the field's name.
        """
        if isinstance(source, cls):
            return source
        known, asked = builtin_names(), str(source)
        path = _BUILTIN / f"{asked}.yaml" if asked in known else Path(asked)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if path.suffix in (".yaml", ".yml") or path.exists():
                raise RecipeError(
                    f"cannot read recipe {path}: {getattr(error, 'strerror', None) or 'not a text file'}"
                ) from None
            raise RecipeError(f"{plugins.unknown('recipe', asked, known)}; or give the path of a YAML file") from None
        return cls.parse(text, name=path.stem, source=str(path))

    @classmethod
    def parse(cls, text: str, name: str | None = None, source: str = "recipe") -> Self:
        """The recipe in `text` (YAML); `name` serves where the text has none, `source` stands in messages."""
        try:
            fields = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(fields, dict):
            raise RecipeError(
                f"{source} should be a mapping with 'rules', 'solver' and 'schedule', not {type(fields).__name__}"
            )
        try:
            return cls.model_validate({"name": name or "custom", **fields})
        except ValidationError as error:
            raise RecipeError(f"{source}: {explain(error)}") from None

    def dump(self) -> str:
        """The recipe as YAML, every field written out; `parse` reads it back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def builtin_names() -> list[str]:
    """Names of the recipes that come with Openwork: the files in builtin/."""
    return sorted(path.stem for path in _BUILTIN.glob("*.yaml"))
