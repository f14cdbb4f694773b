"""`Shaper` adds a recipe to any training loop; `strip` takes away what it left on the model."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.hooks import RemovableHandle

from ..constraints._padded import Padded, bare
from ..constraints.base import Constraint
from ..errors import RunError, TrainingError, UsageError
from ..quantization.rounding import unsimulate
from ..recipes.match import Match, fitted, match
from ..recipes.recipe import Recipe
from ..solvers.base import CurrentLoss, State
from .hold import Hold, like
from .quantize import Quantizer

_ATTACHED = "_openwork_shaper"


class Shaper:
    """Brings the weights of `model` into the constraints of `recipe` while your own loop trains it.

    Two phases. While shaping, `penalty()` goes into the loss and every `update_every` steps the solver updates its
    state. `harden()` projects the weights; from then on their zeros hold: they are restored after every step of the
    optimizer, whatever momentum, weight decay or Adam's buffers do to them.

    Inside `with`, hooks on the optimizer, if one was given, tie the gradients of weights that share a value and hold
    zeros and ties, also through steps that `step()` was not called for; else call `tie()` before each step and `step()`
    after it. Biases and batch norm are never touched.

    Arguments:
        model: any module with convolutions, linear, recurrent or attention layers, on the device where it is trained;
            its weights are changed in place, its modules are not replaced.
        recipe: rules and solver; the schedule is not used here, the loop is yours.
        optimizer: the optimizer of your loop.
        update_every: training steps between updates of the solver; None leaves it to your calls of `update()`.
        held: `hold` of a shaper that has cut this model before: what it holds stays so, and this one prunes further.
        loss: for solvers that compare the loss between updates (SLR): a function that returns it as a number at the
            weights as they are, always over the same examples, in evaluation mode; it must leave the model as it was.

    Raises RecipeError, ShapeError, ModelError as `recipes.match.match` does; UsageError if another shaper is at work.

    >>> import openwork as ow, torch
    >>> model = torch.nn.Linear(16, 4)
    >>> recipe = ow.Recipe(rules=[ow.Rule(targets="all", constraint=ow.Block(shape=(4, 1), sparsity=0.5))])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> with ow.Shaper(model, recipe, optimizer, update_every=5) as shaper:
    ...     for _ in range(20):
    ...         loss = model(torch.randn(8, 16)).square().mean() + shaper.penalty()
    ...         optimizer.zero_grad(); loss.backward(); optimizer.step(); shaper.step()
    >>> shaper.harden()
    >>> int((model.weight != 0).sum())
    32
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        update_every: int | None = 200,
        held: Hold | None = None,
        loss: CurrentLoss | None = None,
    ) -> None:
        if update_every is not None and update_every < 1:
            raise UsageError(f"update_every={update_every} must be at least 1, or None for updates by hand")
        if recipe.constraints is not None:
            raise UsageError("the recipe has a budget; pick its sparsities with openwork.allocate, and use its recipe")
        self.model, self.recipe, self.optimizer = model, recipe, optimizer
        self._asked = match(recipe, model)
        self._before = Hold.of(model) if held is None else Hold.of(model).loaded(held.state_dict())
        self.hold = self._before
        """What brings the weights back after each step of the optimizer; goes into the next shaper as `held`."""
        self.hold.apply()
        self._take([self._going_on(m) for m in fitted(self._asked)])
        self.hold = self._before = self._before.release(
            name for name, (_, constraint) in zip(self._names, self._constrained, strict=True) if constraint.quantized
        )
        self.phase = "shape"
        """'shape' until `harden()`, 'retrain' after it, 'quantize' after `quantize()`, 'rounded' after `round()`."""
        self._quantizer: Quantizer | None = None
        self._update_every, self._steps, self._loss = update_every, 0, loss
        self._levels: list[tuple[Tensor, ...]] = []
        self._hooks: tuple[RemovableHandle, ...] = ()
        self._state = recipe.solver.init(*self._pairs)
        self._adopt_of_parts(recipe.solver.masks(self._state))

    def _going_on(self, found: Match) -> Match:
        if found.constraint is None:
            return found
        return replace(found, constraint=self._before.goes_on(found.name, found.constraint))

    def _take(self, matches: list[Match]) -> None:
        """Keep what training steps ask for again and again."""
        self.matches: list[Match] = matches
        """What the recipe asks of each weight that rules can hit, dense ones included."""
        self._names = [m.name for m in matches if m.constraint is not None]
        self._constrained = [(m.weight, m.constraint) for m in matches if m.constraint is not None]
        pairs = [(w, part) for w, whole in self._constrained for part in whole.parts()]
        # What the solver sees: a weight under several constraints comes once with each.
        self._pairs: tuple[list[Tensor], list[Constraint]] = [w for w, _ in pairs], [part for _, part in pairs]

    def __enter__(self) -> Self:
        if getattr(self.model, _ATTACHED, self) is not self:
            raise UsageError(
                "another Shaper is at work on this model; leave its 'with' block, or call strip(model), first"
            )
        object.__setattr__(self.model, _ATTACHED, self)
        if self.optimizer is not None and not self._hooks:
            self._hooks = (
                self.optimizer.register_step_pre_hook(self._before_step),
                self.optimizer.register_step_post_hook(lambda *_: self._settle(None)),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Leave model and optimizer as plain torch objects; the weights stay as they are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = ()
        if getattr(self.model, _ATTACHED, None) is self:
            object.__delattr__(self.model, _ATTACHED)

    def penalty(self) -> Tensor:
        """What to add to the loss of this step: a scalar tensor, zero after `harden()`."""
        if self.phase != "shape":
            return torch.zeros((), device=self.matches[0].weight.device)
        penalty = self.recipe.solver.penalty(*self._pairs, self._state)
        if not math.isfinite(value := penalty.item()):
            raise TrainingError(f"the penalty of {self.recipe.solver.kind()} is {value}; {self._remedy()}")
        return penalty

    def tie(self) -> None:
        """Call before each `optimizer.step()` that has no hooks: after `harden()`, weights that are tied together get
        one gradient, so that optimizers that normalize steps weight by weight (Adam) take them downhill."""
        self.hold.tie()

    def step(self, rate: float | None = None) -> None:
        """Call after each `optimizer.step()`: holds zeros and lets the solver update when its time has come.

        `rate`: the learning rate of the step, which proximal solvers need; None: that of the optimizer given.
        """
        if not self._hooks:
            self._settle(rate)
        self._steps += 1
        if self._update_every and self.phase == "shape" and self._steps % self._update_every == 0:
            self.update()

    def update(self, loss: CurrentLoss | None = None) -> None:
        """Let the solver update its state now; `step()` does so every `update_every` steps.

        `loss`: as of the constructor, whose stands in for None.
        """
        if self.phase != "shape":
            raise UsageError("update() after harden(): the solver has done its work, only step() is needed now")
        self._finite()
        self._state = self.recipe.solver.update(*self._pairs, self._state, loss or self._loss)
        self._adopt_of_parts(self.recipe.solver.masks(self._state))

    @torch.no_grad()
    def restart(self) -> None:
        """Project the weights and begin shaping again from there, with the solver's state as at its start. Zeros are
        not held yet, so they may come back."""
        self._finite()
        for weight, constraint in self._constrained:
            weight.copy_(constraint.project(weight))
        self.hold = self._before
        self.hold.apply()
        self._state = self.recipe.solver.init(*self._pairs)
        self._adopt_of_parts(self.recipe.solver.masks(self._state))

    @torch.no_grad()
    def harden(self, freeze: float = 0.0) -> None:
        """Project the weights, so that every constraint holds exactly, and keep them in from now on: zeros stay zeros,
        what is tied stays tied, and of the weights left in each layer the largest share `freeze` stay as they are. Of
        layers on levels the share that lies nearest to its levels is projected and stays, and the rest moves on, to
        levels that are settled from now on."""
        self._finite()
        cuts = {name: (c, c.project(w), c.mask(w)) for name, (w, c) in zip(self._names, self._constrained, strict=True)}
        near = {
            name: self.hold.near(name, member, mask, freeze)
            for name, (c, member, mask) in cuts.items()
            if freeze and c.quantized
        }
        self._levels = [
            c.levels(cuts[name][1])[1:] for name, (_, c) in zip(self._names, self._constrained, strict=True)
        ]
        for name, (weight, _) in zip(self._names, self._constrained, strict=True):
            constraint, member, mask = cuts[name]
            weight.copy_(torch.where(near[name], member, weight * mask) if name in near else member)
            if name in near:
                cuts[name] = constraint.fixed(member), member, mask
        self.phase = "retrain"
        self._state = State()  # The solver's work is done: neither memory nor checkpoints need to hold it any longer.
        self.hold = self._before.cut(cuts, near)
        self.hold.apply()
        self.hold = self.hold.freeze(freeze)

    @torch.no_grad()
    def tighten(self) -> None:
        """After `harden()`: hold the zeros that the weights have now, too, such as those of network purification.

        For constraints that are zeros in their places.
        """
        if self.phase != "retrain":
            raise UsageError("tighten() before harden(): constraints must hold first")
        left = {name: weight != 0 for name, (weight, _) in zip(self._names, self._constrained, strict=True)}
        self._levels = [
            tuple(mask & rest for mask in masks) for masks, rest in zip(self._levels, left.values(), strict=True)
        ]
        self.hold = self.hold.within(left)
        self.hold.apply()

    @torch.no_grad()
    def quantize(self, inputs: Iterable[Tensor]) -> None:
        """After `harden()`: from now on layers work with weights and inputs that are rounded as the recipe's `quantize`
        says, while the optimizer goes on moving the weights behind them. Zeros and ties hold.

        `inputs`: batches of training data, from which ranges are taken; of them, as many as the recipe says are used.

        Raises UsageError before `harden()` or if the recipe quantizes nothing, RecipeError for targets without a layer,
        DataError if there are no batches, TrainingError if a layer's inputs are not finite.

        >>> import openwork as ow
        >>> rule = ow.Rule(targets="all", constraint=ow.NM())
        >>> recipe = ow.Recipe(rules=[rule], quantize=ow.Quantization(activations={"bits": 4}))
        >>> model = nn.Linear(8, 2)
        >>> shaper = Shaper(model, recipe)
        >>> shaper.harden()
        >>> shaper.quantize([torch.rand(16, 8)])
        >>> model(torch.rand(1, 8)).sum().backward()          # and train
        >>> shaper.round()
        >>> int((model.weight != 0).sum())
        8
        """
        if self.phase != "retrain" or self.recipe.quantize is None:
            what = "the recipe has no 'quantize'" if self.phase == "retrain" else f"the phase is {self.phase!r}"
            raise UsageError(f"quantize() comes once, after harden(), with a recipe that quantizes: {what}")
        if self.levels > 1:
            raise UsageError("networks inside each other (nested sparsity) cannot be quantized; prune to one level")
        self._quantizer = Quantizer.of(self.model, self.recipe.quantize, self.hold)
        self._quantizer.calibrate(inputs)
        self.phase = "quantize"

    @torch.no_grad()
    def round(self) -> None:
        """After `quantize()`: end it. Weights are the numbers that layers worked with, and no longer move; inputs are
        still rounded, to what `openwork.quantization.rounding.grids(model)` says. `strip(model)` takes that away."""
        if self.phase != "quantize" or self._quantizer is None:
            raise UsageError("round() comes after quantize()")
        self.hold = self._quantizer.round(self.hold)
        self.phase = "rounded"

    @property
    def levels(self) -> int:
        """Networks that the weights hold since `harden()`: 1, or as many as nested sparsity has levels."""
        return 1 + max(map(len, self._levels), default=0)

    @contextlib.contextmanager
    def at_level(self, level: int) -> Iterator[None]:
        """Inside, weights are those of a level of nested sparsity, and gradients that come about are of these only.

        >>> for level in range(1, shaper.levels + 1):                       # doctest: +SKIP
        ...     with shaper.at_level(level):
        ...         criterion(model(x), y).backward()
        """
        if not 1 <= level <= self.levels:
            raise UsageError(f"level={level!r} is not in 1..{self.levels}: levels come from nested sparsity")
        masked = [
            (w, masks[min(level - 2, len(masks) - 1)])
            for (w, _), masks in zip(self._constrained, self._levels, strict=False)
            if level > 1 and masks
        ]
        before = [(w.detach().clone(), w.grad) for w, _ in masked]
        for w, mask in masked:
            w.data.mul_(mask)
            w.grad = None
        try:
            yield
        finally:
            for (w, mask), (value, grad) in zip(masked, before, strict=True):
                w.data.copy_(value)
                if w.grad is not None:
                    w.grad.mul_(mask)
                w.grad = grad if w.grad is None else w.grad if grad is None else w.grad.add_(grad)

    def obeyed(self) -> list[Match]:
        """`matches` with everything that their weights were projected onto, also by shapers before this one."""
        return [replace(m, constraint=self.hold.obeyed(m.name)) for m in self.matches]

    def metrics(self) -> dict[str, float]:
        """Figures of the solver (residuals, penalty weight), and the share of zero weights over all layers."""
        figures = {"sparsity": self.sparsity()}
        return {**self.recipe.solver.metrics(self._state), **figures} if self.phase == "shape" else figures

    def sparsity(self) -> float:
        """Share of zeros among all weights that rules can hit, constrained or not."""
        weights = {id(m.weight): m.weight for m in self.matches}.values()
        nonzero = sum(int(torch.count_nonzero(w)) for w in weights)
        return 1 - nonzero / sum(w.numel() for w in weights)

    def state_dict(self) -> dict[str, Any]:
        """Phase, step count, solver state, masks and settled constraints: numbers, strings and tensors only."""
        tensors = {f"{name}.{i}": t for name, group in self._state.tensors.items() for i, t in enumerate(group)}
        return {
            "phase": self.phase,
            "steps": self._steps,
            "layers": self._names,
            "settled": {
                m.name: bare(m.constraint).model_dump(mode="json")
                for m, asked in zip(self.matches, self._asked, strict=True)
                if m.constraint is not None and m.constraint != asked.constraint
            },
            "numbers": dict(self._state.numbers),
            "solver": tensors,
            **self.hold.state_dict(),
            "quantized": {} if self._quantizer is None else self._quantizer.state_dict(),
            "levels": {f"level.{i}.{j}": m for i, masks in enumerate(self._levels) for j, m in enumerate(masks)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave; RunError if it belongs to other layers."""
        if state["layers"] != self._names:
            raise RunError(f"the saved state is of layers {state['layers']}, this recipe and model have {self._names}")
        self._take([_settled(m, state["settled"]) for m in self._asked])
        weights = self._pairs[0]
        names = dict.fromkeys(key.rpartition(".")[0] for key in state["solver"])
        tensors = {
            name: tuple(like(w, t := state["solver"][f"{name}.{i}"], t.dtype) for i, w in enumerate(weights))
            for name in names
        }
        self._state = State(tensors=tensors, numbers=dict(state["numbers"]))
        self.phase, self._steps = state["phase"], state["steps"]
        self.hold = self._before.loaded(state)
        if (saved := state.get("quantized")) and self.recipe.quantize is not None:
            self._quantizer = Quantizer.of(self.model, self.recipe.quantize, self.hold)
            self._quantizer.load_state_dict(saved)
        self._levels = [
            tuple(like(w, mask, torch.bool) for mask in _numbered(state["levels"], f"level.{i}."))
            for i, (w, _) in enumerate(self._constrained)
        ]

    def _finite(self) -> None:
        for m in self.matches:
            if m.constraint is not None and not bool(m.weight.isfinite().all()):
                raise TrainingError(f"layer {m.name!r} holds NaN or infinite weights; {self._remedy()}")

    def _remedy(self) -> str:
        """What to lower where numbers grow without limit."""
        return " or ".join(["lower the learning rate", *(f"solver.{field}" for field in self.recipe.solver.REMEDY)])

    def _settle(self, rate: float | None) -> None:
        """After a step of the optimizer: what the solver does to the weights, then what must hold."""
        if self.phase == "shape":
            if rate is None and self.optimizer is not None:
                rate = float(self.optimizer.param_groups[0]["lr"])
            self.recipe.solver.after_step(*self._pairs, self._state, rate)
        self.hold.apply()

    def _before_step(self, optimizer: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """`tie()`, when gradients are there: now, or when the closure has made them that `optimizer.step` was given."""

        def tied(closure: Callable[[], Any]) -> Any:
            loss = closure()
            self.tie()
            return loss

        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": partial(tied, kwargs["closure"])}
        if len(args) > 1 and callable(args[1]):
            return (args[0], partial(tied, args[1]), *args[2:]), kwargs
        self.tie()
        return args, kwargs

    def _adopt_of_parts(self, masks: Sequence[Tensor] | None) -> None:
        """The solver's masks, one for each part of a constraint: a weight stays where all of them let it."""
        if masks is None:
            return
        rest = iter(masks)
        together = [torch.stack([next(rest) for _ in c.parts()]).all(dim=0) for _, c in self._constrained]
        self.hold = self._before.within(dict(zip(self._names, together, strict=True)))
        self.hold.apply()


def _numbered(tensors: Mapping[str, Tensor], prefix: str) -> Iterator[Tensor]:
    """Those called `prefix` and 0, 1, 2, ..."""
    return (tensors[f"{prefix}{i}"] for i in range(sum(name.startswith(prefix) for name in tensors)))


def _settled(asked: Match, saved: Mapping[str, Any]) -> Match:
    """The match with the constraint that a saved state has settled."""
    if asked.constraint is None or asked.name not in saved:
        return asked
    found = Constraint.parse(saved[asked.name])
    return replace(asked, constraint=Padded(inner=found) if isinstance(asked.constraint, Padded) else found)


def strip(model: nn.Module) -> nn.Module:
    """Make `model` a plain torch module again, zeros in place, and return it.

    Detaches a shaper that is still at work, ends the rounding of layers' inputs, and bakes torch parametrizations of
    weights (`torch.nn.utils.parametrize`) and pruning masks of `torch.nn.utils.prune` into the weights.
    """
    shaper = getattr(model, _ATTACHED, None)
    if isinstance(shaper, Shaper):
        shaper.detach()
    for module in unsimulate(model).modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        if prune.is_pruned(module) and hasattr(module, "weight_orig"):
            prune.remove(module, "weight")  # type: ignore[no-untyped-call]
    return model
