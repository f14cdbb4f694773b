"""Losses on numbers small enough to be worked out by hand."""

from math import log

import pytest
import torch
from torch import Tensor

from openwork.errors import ModelError, RecipeError
from openwork.losses.base import Outputs
from openwork.losses.feature import Feature
from openwork.losses.hard import Hard
from openwork.losses.labels import Labels
from openwork.losses.self_supervised import SelfSupervised, distance
from openwork.losses.soft import Soft

LABEL = torch.tensor([0])


def logits(*values: float) -> Outputs:
    return Outputs(torch.tensor([values]))


def layers(**values: Tensor) -> Outputs:
    return Outputs(torch.zeros(1, 2), values)


def test_labels() -> None:
    student = logits(0.0, log(3))  # probabilities 1/4 and 3/4
    assert float(Labels().value(student, None, LABEL)) == pytest.approx(log(4))
    smooth = 0.9 * log(4) + 0.1 * (log(4) + log(4 / 3)) / 2
    assert float(Labels(label_smoothing=0.1).value(student, None, LABEL)) == pytest.approx(smooth)


def test_hard_is_the_cross_entropy_with_the_teachers_decision_whatever_the_label() -> None:
    student, teacher = logits(0.0, log(3)), logits(-1.0, 5.0)
    assert float(Hard().value(student, teacher, LABEL)) == pytest.approx(log(4 / 3))


def test_soft_is_hintons_formula() -> None:
    student, teacher = logits(0.0, 2 * log(3)), logits(0.0, 0.0)  # at T = 2: 1/4, 3/4 and 1/2, 1/2
    loss = Soft(weight=0.3, temperature=2.0)
    assert float(loss.value(student, teacher, LABEL)) == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert loss.factor == pytest.approx(0.3 * 4)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 4, generator=g), torch.randn(5, 4, generator=g)
    p, q = (b / 3).softmax(1), (a / 3).softmax(1)
    found = Soft().value(Outputs(a), Outputs(b), LABEL)
    assert torch.allclose(found, (p * (p / q).log()).sum(1).mean(), atol=1e-6)


def test_feature_is_the_mean_square_error_of_each_layer_times_its_share() -> None:
    student = layers(a=torch.tensor([[1.0, 2.0]]), b=torch.tensor([[[0.0]]]))
    teacher = layers(a=torch.tensor([[0.0, 0.0]]), b=torch.tensor([[[3.0]]]))
    assert float(Feature(layers="a").value(student, teacher, LABEL)) == 2.5
    assert float(Feature(layers=("a", "b")).value(student, teacher, LABEL)) == 11.5
    assert float(Feature(layers=("a", "b"), shares=(2.0, 0.5)).value(student, teacher, LABEL)) == 9.5


def test_attention_is_where_a_layer_looks_not_how_hard() -> None:
    # two channels at two positions; mean squares 9/2 and 16/2, so the map is (9, 16) / sqrt(337)
    student = layers(a=torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]))
    teacher = layers(a=torch.tensor([[[1.0, 0.0]]]))
    loss = Feature(layers="a", compare="attention")
    norm = (9**2 + 16**2) ** 0.5
    expected = ((9 / norm - 1) ** 2 + (16 / norm) ** 2) / 2
    assert float(loss.value(student, teacher, LABEL)) == pytest.approx(expected)
    assert float(loss.value(layers(a=7 * student.layers["a"]), student, LABEL)) == pytest.approx(0, abs=1e-12)


def test_shares_by_loss_have_a_mean_of_one_and_keep_the_others_proportion() -> None:
    loss = Feature(layers=("a", "b"), by_loss=True)
    assert loss.after({"a": 1.0, "b": 3.0}).shares == (0.5, 1.5)
    assert loss.after({"a": 0.0, "b": 0.0}) == loss  # nothing to go by
    assert Feature(layers=("a", "b")).after({"a": 1.0, "b": 3.0}).shares == ()


def test_self_supervision_is_free_of_scale_and_survives_a_judgement_of_zero() -> None:
    generator = {"gen": (2.0, 2.5), "class": (0.5, 0.4), "rebuilt": (0.1, 0.13)}
    critic = {"dis": (-1.0, -0.8), "penalty": (0.02, 0.025)}
    both = {name: (torch.tensor(a), torch.tensor(b)) for name, (a, b) in {**generator, **critic}.items()}
    weights = {"gen": 1.0, "class": 1.0, "rebuilt": 10.0, "dis": 0.5, "penalty": 0.5 * 10}
    for scale in (1.0, 7.0):
        original = {name: scale * a for name, (a, _) in both.items()}
        compressed = {name: scale * b for name, (_, b) in both.items()}
        # 0.25 + 0.2 + 10 * 0.3, and half of 0.2 + 10 * 0.25
        assert float(distance(original, compressed, weights)) == pytest.approx(4.8, abs=1e-5)
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(2.5, requires_grad=True)
    distance({"x": a}, {"x": b}).backward()
    assert a.grad is None and b.grad == 0.5  # the original learns nothing
    assert float(distance({"x": torch.tensor(0.0)}, {"x": torch.tensor(0.0)})) == 0.0
    # Cross-entropies log 2 and log 4: 2 is a whole too much.
    found = SelfSupervised().value(logits(0.0, log(3)), logits(0.0, 0.0), LABEL)
    assert float(found) == pytest.approx(1.0)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(RecipeError, match="shares has 1 weights for 2 layers; give one for each"):
        Feature(layers=("a", "b"), shares=(1.0,))
    with pytest.raises(RecipeError, match="layers names a layer twice: a, a"):
        Feature(layers=("a", "a"))
    with pytest.raises(RecipeError, match=r"^Soft\.temperature: 0\.0: input should be greater than 0$"):
        Soft(temperature=0.0)
    student, teacher = layers(a=torch.zeros(1, 2, 3)), layers(a=torch.zeros(1, 2, 4))
    for compare, words in (
        ("values", "outputs of layer 'a' differ in shape .*: 1x2x3 and 1x2x4"),
        ("attention", "positions"),
    ):
        with pytest.raises(ModelError, match=words):
            Feature(layers="a", compare=compare).value(student, teacher, LABEL)
    flat = layers(a=torch.zeros(1, 2))
    with pytest.raises(
        ModelError, match="layer 'a' gives 1x2: there are no positions to look at; set compare to values"
    ):
        Feature(layers="a", compare="attention").value(flat, flat, LABEL)
