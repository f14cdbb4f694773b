"""Rules against a model: who is hit, who wins, what is left dense, and what is refused."""

import pytest
import torch
from torch import nn

from openwork import plugins
from openwork.constraints._padded import Padded
from openwork.constraints.block import Block
from openwork.constraints.filter import Filter
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ModelError, RecipeError, ShapeError
from openwork.recipes.match import match
from openwork.recipes.recipe import Recipe, Rule

HALF = Unstructured(sparsity=0.5)
MOST = Unstructured(sparsity=0.9)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1))
        self.head = nn.Linear(6, 10)


def hit(*rules: Rule, model: nn.Module | None = None) -> dict[str, object]:
    return {m.name: m.constraint for m in match(Recipe(rules=rules), model or Net())}


DENSE = {"stem": None, "layer1.0": None, "layer1.2": None, "head": None}


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("all", {"stem", "layer1.0", "layer1.2", "head"}),
        ("conv2d", {"stem", "layer1.0", "layer1.2"}),
        ("linear", {"head"}),
        ("layer1.2", {"layer1.2"}),
        ("re:layer", {"layer1.0", "layer1.2"}),
        ("re:.*2$", {"layer1.2"}),
        (("stem", "linear"), {"stem", "head"}),
    ],
)
def test_targets(targets: str, names: set[str]) -> None:
    assert hit(Rule(targets=targets, constraint=HALF)) == {name: HALF if name in names else None for name in DENSE}


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, bidirectional=True)
        self.cell = nn.LSTMCell(6, 6)
        self.attention = nn.MultiheadAttention(8, 2)
        self.other = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, add_bias_kv=True)


GRU = {f"gru.weight_{what}_l0{way}" for what in ("ih", "hh") for way in ("", "_reverse")}
CELL = {"cell.weight_ih", "cell.weight_hh"}
INSIDE = {"attention.in_proj_weight", *(f"other.{x}_proj_weight" for x in "qkv")}
OUT = {"attention.out_proj", "other.out_proj"}


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("all", GRU | CELL | INSIDE | OUT),
        ("recurrent", GRU | CELL),
        ("attention", {"attention.in_proj_weight"}),  # a layer of that name goes before the word
        (("re:.*proj_weight", "linear"), INSIDE | OUT),
        ("gru", GRU),
        ("gru.weight_hh_l0", {"gru.weight_hh_l0"}),
        ("re:gru.*hh", {"gru.weight_hh_l0", "gru.weight_hh_l0_reverse"}),
        ("other", {f"other.{x}_proj_weight" for x in "qkv"}),
    ],
)
def test_targets_among_recurrent_layers_and_attention(targets: str, names: set[str]) -> None:
    found = hit(Rule(targets=targets, constraint=HALF), model=Sequences())
    assert set(found) == GRU | CELL | INSIDE | OUT and {name for name, c in found.items() if c} == names


def test_the_word_attention_means_every_projection_inside() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2), "b": nn.MultiheadAttention(8, 2, kdim=6)})
    found = hit(Rule(targets="attention", constraint=HALF), model=model)
    assert {n for n, c in found.items() if c} == {"a.in_proj_weight", *(f"b.{x}_proj_weight" for x in "qkv")}


def test_ignore_takes_layers_out_and_may_hit_nothing() -> None:
    wanted = {**DENSE, "layer1.0": HALF, "layer1.2": HALF}
    assert hit(Rule(targets="all", ignore=("stem", "linear", "re:nowhere"), constraint=HALF)) == wanted


def test_later_rules_win() -> None:
    wanted = {**dict.fromkeys(DENSE, HALF), "head": MOST}
    assert hit(Rule(targets="all", constraint=HALF), Rule(targets="head", constraint=MOST)) == wanted
    with pytest.raises(RecipeError, match=r"rules\[0\]: later rules take all of its layers"):
        hit(Rule(targets="head", constraint=MOST), Rule(targets="all", constraint=HALF))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            Rule(targets="layer1.1", constraint=HALF),
            r"rules\[0\]\.targets: 'layer1\.1' matches no .* did you mean layer1\.[02]",
        ),
        (
            Rule(targets="re:conv", constraint=HALF),
            r"'re:conv' matches no convolution, linear, recurrent or attention layer; .*known: stem, layer1\.0",
        ),
        (Rule(targets="norm", constraint=HALF), r"'norm' matches no convolution, linear, recurrent or attention layer"),
        (Rule(targets="re:(", constraint=HALF), r"rules\[0\]\.targets: 're:\(' is not a regular expression"),
        (Rule(targets="linear", ignore="head", constraint=HALF), r"rules\[0\]\.ignore: .* leaves none of the 1 layers"),
    ],
)
def test_rules_without_a_layer_are_errors(rule: Rule, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        hit(rule)


def test_misfits_stop_are_padded_or_are_left_dense_with_a_note() -> None:
    block = Block(shape=(4, 1), sparsity=0.5)
    with pytest.raises(
        ShapeError, match=r"rules\[0\], layer 'layer1\.2': block: out = 6 of weight 6x8x1x1 is not a multiple of 4"
    ):
        hit(Rule(targets="all", constraint=block))
    padded = hit(Rule(targets="all", constraint=block, on_misfit="pad"))
    assert padded == {"stem": block, "layer1.0": block, "layer1.2": Padded(inner=block), "head": Padded(inner=block)}
    found = match(Recipe(rules=[Rule(targets="all", constraint=block, on_misfit="skip")]), Net())
    assert [m.constraint for m in found] == [block, block, None, None]
    assert [bool(m.note) for m in found] == [False, False, True, True]
    assert "out = 6 of weight 6x8x1x1 is not a multiple of 4" in found[2].note


def test_weights_that_cannot_be_used_name_their_layer() -> None:
    model = Net()
    with torch.no_grad():
        model.head.weight[1, 2] = float("nan")
    with pytest.raises(ModelError, match="layer 'head' has 1 NaN or infinite weights of 60"):
        hit(Rule(targets="stem", constraint=HALF), model=model)
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 0))
    with pytest.raises(ModelError, match="layer '1' has a weight of shape 0x4 without elements"):
        hit(Rule(targets="0", constraint=HALF), model=empty)
    with pytest.raises(ModelError, match="ReLU has no convolution, linear, recurrent or attention layer"):
        hit(Rule(targets="all", constraint=HALF), model=nn.ReLU())


def test_a_weight_that_two_layers_share_must_be_named_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(RecipeError, match="layers '0' and '1' share one weight; put one of them into 'ignore'"):
        hit(Rule(targets="all", constraint=HALF), model=model)
    assert hit(Rule(targets="0", constraint=HALF), model=model) == {"0": HALF, "1": None}


def test_block4x1_80_zeroes_80_percent_of_all_weights_of_resnet20() -> None:
    model = plugins.module("models", "cifar10_resnet20").build(None)
    found = match(Recipe.load("block4x1-80"), model)
    total = sum(m.weight.numel() for m in found)
    nonzero = sum(
        int((m.weight if m.constraint is None else m.constraint.project(m.weight)).count_nonzero()) for m in found
    )
    assert total == 268_336 and 0.80 <= 1 - nonzero / total < 0.801
    assert [m.name for m in found if m.constraint is None] == ["conv1", "linear"]
    assert all(m.constraint.kind() == "block" and m.constraint.shape == (4, 1) for m in found if m.constraint)  # type: ignore[attr-defined]


def test_filter_50_halves_the_filters_of_convolutions() -> None:
    found = match(Recipe.load("filter-50"), Net())
    assert [m.constraint for m in found] == [Filter(sparsity=0.5)] * 3 + [None]
