"""`allocate`: a recipe with a budget becomes one with a sparsity for each layer."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data.base import Data
from ..errors import OpenworkNotice, RecipeError, UsageError
from ..recipes.budget import Budget, shown
from ..recipes.match import Match, match
from ..recipes.recipe import Recipe, Rule
from ..recipes.stages import spelled_out
from . import tables
from .allocation import Allocation, Layer, Spent
from .clock import Clock
from .figures import Figures, digest
from .measure import Measurements, at, member_of
from .problem import Problem, secant
from .tables import LayerTable, Picks

ROUNDS = 3
"""How often the whole network is measured, at most; the sum over layers is corrected in between."""

CLOSE = 0.95
"""A network that takes at least this share of the time it may take needs no correction."""


def allocate(
    model: nn.Module,
    recipe: Recipe | str | Path,
    data: Data | None = None,
    example_inputs: Tensor | tuple[Tensor, ...] | None = None,
    *,
    folder: str | Path | None = None,
    threads: int | None = None,
    note: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> Allocation:
    """Pick the sparsity of each layer so that the whole network keeps within the recipe's budget and loses least.

    Every layer of a rule without sparsity is cut alone at each of `constraints.ratios`: what the network then loses and
    the layer costs is its table, and `constraints.method` picks from the tables. Losses and costs of layers are summed,
    which is an approximation of both: layers depend on each other. Latency is therefore measured on the whole network
    in the end, three times at most, and the budget of the layers corrected in between by what they save there. Where a
    layer is at no sparsity faster than dense it stays dense, and others have its share.

    Arguments:
        model: a trained model; it is left as it is.
        recipe: with `constraints`: a recipe, the name of a built-in one, or the path of a YAML file.
        data: for the losses; not needed with `scan: weights`.
        example_inputs: one example `[1, ...]`; default: that of `data`.
        folder: where figures and result are kept (`allocation-figures.json`, `allocation.json`). What is there of the
            same recipe, weights, inputs and data, and of the same machine and threads if latency counts, is not
            measured again.
        threads: of an inference; None: the cores that this process may use.
        note: called with a line about what is measured.
        clock: who times layers; default: the engine of this machine.

    Raises RecipeError if the budget is impossible (it names the nearest possible one) or does not ask for anything,
    UsageError if there is no budget, or nothing to count or measure losses on, DataError if losses are to be measured
    on data without examples, and what `recipes.match.match` raises.

    Source: Ren et al. 2019, arXiv:1812.11677 (break-even); Everett 1963 (prices of resources).

    >>> import openwork as ow, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    >>> rule = ow.Rule(targets="all", constraint={"kind": "block", "shape": (2, 1)})
    >>> recipe = ow.Recipe(rules=[rule], constraints=ow.Budget(macs="25%", scan="weights"))
    >>> found = ow.allocate(model, recipe, example_inputs=torch.randn(1, 64))
    >>> found.spent["macs"].predicted <= 0.25 * found.spent["macs"].dense
    True
    """
    recipe = Recipe.load(recipe)
    if recipe.constraints is None:
        raise UsageError("the recipe has no budget; give it one, such as constraints: {latency: 60%}")
    inputs = data.example_input if example_inputs is None and data is not None else example_inputs
    if inputs is None:
        raise UsageError("allocate needs one example to count on; pass data, or example_inputs")
    if recipe.constraints.scan == "loss" and data is None:
        raise UsageError("constraints.scan is loss, which needs data; pass data, or set it to weights")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    start: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "weights": digest(model.state_dict()),
        "inputs": [list(x.shape) for x in given],
        "data": None if recipe.constraints.scan == "weights" or data is None else [data.name, data.train_size],
        "timed": _timed_on(threads) if recipe.constraints.latency else None,
    }
    if folder is not None and (found := Allocation.load(Path(folder))) is not None and found.start == start:
        return found
    measured = Measurements(
        copy.deepcopy(model).eval(),
        recipe.constraints,
        data,
        given,
        Figures(None if folder is None else Path(folder)),
        start["weights"],
        threads,
        clock,
    )
    allocation = _Allocator(recipe, recipe.constraints, measured, note or (lambda text: None), start).run()
    if folder is not None:
        allocation.save(Path(folder))
    return allocation


def _timed_on(threads: int | None) -> list[Any]:
    """What latencies depend on besides the network."""
    from ..engine.engine import checked_threads
    from ..engine.machine import processor

    return [processor(), checked_threads(threads)]


@dataclass
class _Allocator:
    """An allocation in progress."""

    recipe: Recipe
    budget: Budget
    measured: Measurements
    note: Callable[[str], None]
    start: Mapping[str, Any]

    def run(self) -> Allocation:
        """Measure, pick, check."""
        matches = match(self.recipe, self.measured.model)
        ruled = [m for m in matches if m.constraint is not None]
        self.note(f"measuring {len(ruled)} layers at up to {len(self.budget.ratios)} sparsities each")
        layers = [self.measured.table(m, self._rule(m)) for m in ruled]
        chosen = [self._choosable(layer, m) for layer, m in zip(layers, ruled, strict=True)]
        dense = self.measured.network(matches)
        # What no option changes: layers without a rule, and of latency everything that is no layer.
        rest = {n: whole - sum(self.measured.dense(m)[n] for m in ruled) for n, whole in dense.items()}
        problem = Problem(self.budget, chosen, dense, rest)
        picks, latency = self._verified(problem, ruled)
        spent = {n: Spent(dense[n], problem.limits[n], problem.spent(n, picks)) for n in self.budget.limited}
        if latency is not None:
            spent["latency"] = replace(spent["latency"], measured=latency)
        rows = {
            m.name: self._row(m, layer, choice, pick)
            for m, layer, choice, pick in zip(ruled, layers, chosen, picks, strict=True)
        }
        found = tuple(rows.get(m.name) or self._untouched(m) for m in matches)
        return Allocation(self._settled(matches, found), found, spent, self.start)

    def _rule(self, m: Match) -> Rule:
        assert m.rule is not None
        return self.recipe.rules[m.rule]

    def _choosable(self, layer: LayerTable, m: Match) -> LayerTable:
        """The options that may be picked: beyond break-even, within the rule's bounds, and of some use."""
        if self.budget.latency:
            layer = tables.beyond_break_even(layer)
        if self._rule(m).min_sparsity and len(layer.options) > 1:
            layer = replace(layer, options=tuple(o for o in layer.options if o.sparsity > 0))
        return tables.useful(layer, self.budget.limited)

    # ---- picking ----

    def _verified(self, problem: Problem, ruled: list[Match]) -> tuple[Picks, float | None]:
        """Picks under which the measured network keeps its latency and uses it up, and that latency."""
        if not self.budget.latency:
            return problem.solved(problem.limits), None
        limit, floor, dense = problem.limits["latency"], problem.least("latency"), problem.dense["latency"]
        bound, tried = max(limit, floor), dict[Picks, float]()
        over, under = (dense, dense), None
        while len(tried) < ROUNDS:
            picks = problem.solved({**problem.limits, "latency": bound})
            if picks in tried:
                break
            measured = self.measured.clock.network(self._members(problem.layers, picks, ruled))
            tried[picks] = measured
            self.note(f"the whole network takes {shown('latency', measured)} of at most {shown('latency', limit)}")
            if CLOSE * limit <= measured <= limit:
                break
            if measured > limit and bound <= floor:
                raise problem.impossible("latency", measured)
            found = problem.spent("latency", picks), measured
            if measured > limit:
                bound, over = secant(found, under or (dense, dense), limit), found
            else:
                bound, under = secant(found, over, limit), found
            bound = max(floor, bound)
        if kept := [picks for picks, measured in tried.items() if measured <= limit]:
            best = min(kept, key=lambda picks: tables.loss(problem.layers, picks))
            return best, tried[best]
        best = min(tried, key=lambda picks: tried[picks])
        warnings.warn(
            f"constraints.latency: the network takes {shown('latency', tried[best])}, {shown('latency', limit)} was "
            "asked for: layers save less together than alone; ask for less, or for other layers",
            OpenworkNotice,
            stacklevel=2,
        )
        return best, tried[best]

    def _members(self, layers: list[LayerTable], picks: Picks, ruled: list[Match]) -> dict[str, Tensor]:
        """Weights of the layers that are cut, as magnitude pruning cuts them."""
        found = {}
        for m, layer, pick in zip(ruled, layers, picks, strict=True):
            assert m.constraint is not None
            sparsity, is_open = layer.options[pick].sparsity, self._rule(m).open
            if sparsity > 0 or not is_open:
                found[m.name] = member_of(m.weight, at(m.constraint, sparsity) if is_open else m.constraint)
        return found

    # ---- what comes out ----

    def _row(self, m: Match, layer: LayerTable, choice: LayerTable, pick: int) -> Layer:
        option, is_open = choice.options[pick], self._rule(m).open
        timed = self.budget.latency is not None
        even = tables.break_even(layer) if timed else None
        why = "" if is_open else "its rule has the sparsity"
        if is_open and option.sparsity == 0:
            problem = self.measured.timed(m) if timed else ""
            if isinstance(problem, str) and problem:
                why = f"dense: it cannot be timed alone ({problem})"
            elif timed and even is None:
                why = f"dense: not faster at any sparsity up to {layer.options[-1].sparsity:g}"
            else:
                why = "dense: the budget holds without it"
        return Layer(
            name=m.name,
            shape=tuple(m.weight.shape),
            sparsity=option.sparsity,
            dense=self.measured.dense(m),
            costs=dict(option.costs),
            loss=option.loss if is_open else None,
            accuracy=option.accuracy,
            break_even=even,
            why=why,
        )

    def _untouched(self, m: Match) -> Layer:
        costs = self.measured.counted(m)
        why = f"dense: {m.note}" if m.note else "dense: no rule is for it"
        return Layer(m.name, tuple(m.weight.shape), 0.0, costs, costs, None, None, None, why)

    def _settled(self, matches: list[Match], layers: tuple[Layer, ...]) -> Recipe:
        """The recipe with rules that name layers: what is dense has none, what shares rule and sparsity shares one."""
        pairs = zip(matches, layers, strict=True)
        wanted = {m.name: layer.sparsity for m, layer in pairs if m.rule is not None and self._rule(m).open}
        rules = spelled_out(self.recipe.rules, matches, wanted)
        if not rules:
            raise RecipeError("constraints: the dense network keeps them already; lower them, or leave it unpruned")
        return self.recipe.model_copy(update={"rules": rules, "constraints": None})
