"""What a layer may be run by: never nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import openwork
from openwork.compiler import candidates, tune
from openwork.compiler.candidates import Choice
from openwork.engine import _native
from openwork.formats.program import Step


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("width", candidates.PANELS)
def test_every_image_has_a_dense_tile(isa: str, width: int) -> None:
    """Also those that no tile near the widest cuts evenly, such as 16 pixels by tiles of 14 at most."""
    for w in range(1, 65):
        for h in (1, 2, 3, 7):
            shapes = candidates._dense_tiles(isa, width, h, w)
            assert shapes, (h, w)
            assert all(_native.dense_fits(isa, width, *shape) for shape in shapes)


@pytest.mark.parametrize(
    ("channels", "reach", "tile", "pieces"), [(32, 0, 4, None), (256, 0, 4, 3), (256, 34, 4, 4), (4096, 34, 6, 64)]
)
def test_columns_are_cut_where_a_tile_of_all_channels_exceeds_the_first_cache(channels, reach, tile, pieces):
    """A channel takes a tile's lines, one more, and those that the kernel's rows reach."""
    step = Step("taps", "layer", {"planes": [[[0, 1, channels]]], "shifts": [[0, 0], [0, reach]]})
    found = candidates.in_pieces(step, Choice("taps", 4, (tile,)))
    assert (found and found.pieces) == pieces


def fitted(mask: np.ndarray, **options: str) -> tuple[nn.Linear, openwork.Engine]:
    """A linear layer with the weights of a mask, and its engine."""
    layer = nn.Linear(mask.shape[1], mask.shape[0]).eval()
    layer.weight.data *= torch.from_numpy(mask)
    return layer, openwork.compile(layer, torch.randn(1, mask.shape[1]), threads=1, **options)


def kernels_of(engine: openwork.Engine) -> dict[str, Any]:
    """What ran the layer, and what was tried."""
    return next(row for row in engine.explain(repeats=1).rows if row["op"] == "linear")


@pytest.mark.parametrize(("height", "kernel"), [(1, "balanced_f32_32"), (4, "rows_f32_4"), (16, "rows_f32_16")])
def test_packings_follow_how_scattered_the_zeros_are(height: int, kernel: str) -> None:
    """The cost model's choice for 10 % of the weights, in columns of `height` outputs."""
    random = np.random.default_rng(0)
    mask = np.repeat(random.random((320 // height, 400)) < 0.1, height, axis=0)
    layer, engine = fitted(mask, tune="off")
    assert kernels_of(engine)["kernel"].startswith(f"{kernel}x1_")
    x = torch.randn(1, 400)
    torch.testing.assert_close(engine(x), layer(x), rtol=1e-4, atol=1e-5)


def test_narrow_panels_are_tried_and_told() -> None:
    layer, engine = fitted(np.random.default_rng(0).random((640, 500)) < 0.08, tune="fast")
    x = torch.randn(1, 500)
    torch.testing.assert_close(engine(x), layer(x), rtol=1e-4, atol=1e-5)
    tried = {t["kernel"] for t in kernels_of(engine)["tried"]}
    assert any(name.startswith("rows_f32_1x1_") for name in tried)


@pytest.mark.parametrize("share", [0.5, 0.98, 0.99, 2.0])
def test_sparse_kernels_stay_only_if_the_whole_network_is_not_slower(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which the network without sparse kernels takes `share` of the time that it takes with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.05)
    whole = tune._Tuner._whole

    def timed(self: tune._Tuner, choices: dict[tune._Search, Choice]) -> float:
        whole(self, choices)
        return share if all(choice.dense for choice in choices.values()) else 1.0

    monkeypatch.setattr(tune._Tuner, "_whole", timed)
    x = torch.randn(1, 16, 32, 32)
    engine = openwork.compile(model, x, threads=1)
    rows = [row for row in engine.explain(repeats=1).rows if row["op"] == "conv"]
    dense = share < tune.FASTER
    assert all((tune.OVERRULED in row["why"]) == dense for row in rows)
    layers = [s for s in engine.artifact.program.steps if "value" in s.arrays]
    assert len(layers) == 2 and all((s.op != "taps" or s.fields["dense"]) == dense for s in layers)
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-5)


def test_dense_kernels_that_may_win_after_all_are_timed_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first look at the best dense kernel falls into a bad moment, and sparse ones are faster alone.
    looks: dict[Choice, int] = {}

    def time(self: tune._Tuner, at: int, choice: Choice, expected: float) -> float:
        self._choose(at, choice)
        looks[choice] = looks.get(choice, 0) + 1
        if not choice.dense:
            return 100.0
        if choice.op == "winograd":
            return 160.0 if looks[choice] == 1 else 120.0
        return 150.0

    monkeypatch.setattr(tune._Tuner, "_time", time)
    monkeypatch.setattr(tune._Tuner, "_together", lambda *_: None)
    whole = tune._Tuner._whole

    def timed(self: tune._Tuner, choices: dict[tune._Search, Choice]) -> float:
        whole(self, choices)
        return 1.0 if all(choice.dense for choice in choices.values()) else 2.0

    monkeypatch.setattr(tune._Tuner, "_whole", timed)
    layer = nn.Conv2d(64, 64, 3, padding=1)
    with torch.no_grad():
        layer.weight[torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.75] = 0
    rows = openwork.compile(layer, torch.randn(1, 64, 14, 14), threads=1).explain(1).rows
    assert [row["kernel"].partition("_")[0] for row in rows if row["op"] == "conv"] == ["winograd"]
