"""What every loss owes: a scalar, right gradients, and zero where it says so."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from openwork import plugins
from openwork.losses.base import Loss, Outputs

EVERY = [cls(**example) for cls in plugins.every("losses", Loss).values() for example in cls.EXAMPLES]
every = pytest.mark.parametrize("loss", EVERY, ids=str)
LABELS = torch.tensor([0, 3, 1])


def outputs(seed: int) -> Outputs:
    g = torch.Generator().manual_seed(seed)
    layers = {name: torch.randn(3, 2, *size, generator=g).double() for name, size in (("a", (2, 2)), ("b", (3, 1)))}
    return Outputs(torch.randn(3, 4, generator=g).double(), layers)


def leaves(found: Outputs) -> list[Tensor]:
    return [found.logits, *found.layers.values()]


def test_the_look_up_finds_all_losses() -> None:
    assert set(plugins.every("losses", Loss)) >= {"labels", "hard", "soft", "feature", "self_supervised"}


@every
def test_gradients_are_the_slopes(loss: Loss) -> None:
    student, teacher = outputs(0), outputs(1)
    for x in leaves(student):
        x.requires_grad_()
    value = loss.value(student, teacher, LABELS)
    assert value.shape == () and value.item() > 0
    value.backward()
    heard = [student.layers[name] for name in loss.hears] or [student.logits]
    assert any(x.grad is not None and bool(x.grad.any()) for x in heard)
    for x in heard:
        for index in (0, x.numel() - 1):
            slope = 0.0
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    x.view(-1)[index] += step
                    slope += loss.value(student, teacher, LABELS).item() / (2 * step)
                    x.view(-1)[index] -= step
            assert slope == pytest.approx(0.0 if x.grad is None else float(x.grad.view(-1)[index]), abs=1e-7)


@every
def test_it_is_zero_where_student_and_teacher_agree_if_it_says_so(loss: Loss) -> None:
    both = outputs(0)
    value = float(loss.value(both, replace(both), LABELS))
    assert (abs(value) < 1e-12) == loss.VANISHES


@every
def test_those_that_need_no_teacher_do_without(loss: Loss) -> None:
    if not loss.TEACHER:
        student = outputs(0)
        assert torch.equal(loss.value(student, None, LABELS), loss.value(student, outputs(1), LABELS))


@every
def test_value_and_parts_are_the_same_together_as_alone(loss: Loss) -> None:
    student, teacher = outputs(0), outputs(1)
    value, parts = loss.value_and_parts(student, teacher, LABELS)
    assert torch.equal(value, loss.value(student, teacher, LABELS))
    alone = loss.parts(student, teacher)
    assert parts.keys() == alone.keys() and all(torch.equal(parts[name], alone[name]) for name in alone)


@every
def test_settings_survive_a_dump(loss: Loss) -> None:
    assert Loss.parse(loss.model_dump(mode="json")) == loss


@every
def test_parts_are_scalars_that_retraining_may_be_weighed_by(loss: Loss) -> None:
    parts = loss.parts(outputs(0), outputs(1))
    assert all(part.shape == () for part in parts.values())
    later = loss.after({name: float(part) for name, part in parts.items()})
    assert type(later) is type(loss) and later.weight == loss.weight
    assert loss.after({}) == loss
