"""Layers of integers: bit by bit what PyTorch computes when it rounds activations, wherever their values lie."""

import importlib
import itertools

import pytest
import torch
from rounded import SIGNED, UNSIGNED, Round, assert_same, named, ops, rows, signed, simulate, whole
from small_models import Calls, assert_agrees, compiled, inputs, left_to_torch, lively
from test_operators import Apart
from torch import nn

import openwork
from openwork.compiler import candidates, check
from openwork.compiler.drafts import TILE
from openwork.compiler.integers import Bytes
from openwork.engine import _native
from openwork.engine.engine import Engine
from openwork.errors import CompileError
from openwork.quantization.rows import LEAST, round_rows

SHAPE = (1, 12, 11, 9)


def conv(*arguments, **more):
    return nn.Conv2d(*arguments, **more)


LAYERS = {
    "1x1": lambda: conv(12, 8, 1),
    "3x3": lambda: conv(12, 16, 3, padding=1),
    "no bias, 5 outputs": lambda: conv(12, 5, 3, padding=1, bias=False),
    "without padding": lambda: conv(12, 8, 3),
    "stride 2": lambda: conv(12, 8, 3, stride=2, padding=1),
    "stride 2, 1x1": lambda: conv(12, 8, 1, stride=2),
    "dilation": lambda: conv(12, 8, 3, padding=2, dilation=2),
    "oblong": lambda: conv(12, 8, (1, 5), stride=(1, 2), padding=(0, 2)),
    "groups of words": lambda: conv(12, 24, 3, padding=1, groups=3),
    "groups of three": lambda: conv(12, 8, 3, padding=1, groups=4),
    "depthwise": lambda: conv(12, 12, 3, padding=1, groups=12),
    "depthwise, stride 2": lambda: conv(12, 12, 5, stride=2, padding=2, groups=12),
    "depthwise, twice the outputs": lambda: conv(12, 24, 3, padding=1, groups=12),
}


TAILS = {
    "floats": lambda: [],
    "relu": lambda: [nn.ReLU()],
    "bytes": lambda: [signed(2**-3)],
    "relu to bytes": lambda: [nn.ReLU6(), Round(2**-3)],
}


@pytest.mark.parametrize(("bounds", "threads"), [(UNSIGNED, 1), (SIGNED, 2)], ids=["unsigned", "signed"])
def test_layers_give_the_same_bits(bounds, threads):
    models = [named(Round(2**-4, bounds), layer(), *tail()) for layer in LAYERS.values() for tail in TAILS.values()]
    model = whole(Apart(models))
    shapes = [SHAPE] * len(models)
    engine = compiled(model, *shapes, threads=threads)
    found = ops(engine)
    assert found.count("quad_depthwise") == 4 and found.count("quad_taps") == len(models) - 4
    assert found.count("quantize") == len(models)
    x = inputs(*shapes)
    for name, ours, theirs in zip(itertools.product(LAYERS, TAILS), engine(*x), model(*x), strict=True):
        assert torch.equal(ours, theirs) and len(theirs.unique()) > 3, name


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channels_that_fill_no_word(channels):
    model = whole(named(signed(), conv(channels, 7, 3, 2, 1), nn.ReLU(), Round(2**-6), conv(7, 5, 3), signed(2**-6)))
    for batch in (1, 3):
        engine = compiled(model, (batch, channels, 13, 14))
        assert ops(engine).count("quad_taps") == 2
        assert_same(engine, model, (batch, channels, 13, 14))


@pytest.mark.parametrize("sparsity", [0.6, 0.95, 1.0])
@pytest.mark.parametrize("out", [8, 20, 5])
def test_zeros_are_skipped(sparsity, out):
    model = whole(named(Round(), conv(12, out, 3, padding=1), signed(0.25), conv(out, out, 1)), sparsity=sparsity)
    engine = compiled(model, SHAPE)
    if sparsity < 1:
        assert_same(engine, model, SHAPE)
    found = rows(engine)
    assert found[0]["weights"] == 12 * out * 9
    assert found[0]["nonzero"] == int((model.conv2d1.weight != 0).sum())


RESIDUALS = {
    "bytes of the same sign": (Round(2**-2), Round(2**-2)),
    "bytes of both signs": (signed(2**-2), signed(2**-2)),
    "floats": (nn.Identity(), signed(2**-2)),
}


@pytest.mark.parametrize("kind", RESIDUALS)
@pytest.mark.parametrize("out", [12, 10])
@pytest.mark.parametrize("last", [True, False])
def test_residuals(kind, out, last):
    before, after = RESIDUALS[kind]
    layers = [Round(), conv(12, out, 1), before, conv(out, out, 3, padding=1), after if last else nn.Identity()]

    def forward(m, x):
        y = m[2](m[1](m[0](x)))
        return m[4](m[3](y if kind != "floats" else Round()(y)) + y)

    model = whole(Calls(forward, *layers))
    engine = compiled(model, SHAPE)
    assert ops(engine).count("quad_taps") == 2
    assert_same(engine, model, SHAPE)


def test_a_bottleneck_with_a_shortcut_of_its_own():
    def forward(m, x):
        x = m[0](x)
        y = m[3](m[2](torch.relu(m[1](x))))
        return m[5](torch.relu(y + m[4](x)))

    layers = [Round(), conv(12, 8, 1), Round(0.25), conv(8, 16, 3, 2, 1), conv(12, 16, 1, 2), Round(0.5)]
    model = whole(Calls(forward, *layers))
    engine = compiled(model, SHAPE)
    assert ops(engine).count("quad_taps") == 3 and ops(engine).count("quantize") == 1
    assert_same(engine, model, SHAPE)


def test_sums_of_bytes():
    def forward(m, x):
        return m[5](m[4](torch.relu(m[1](m[0](x)) + m[3](m[2](x)))))

    layers = [Round(), signed(0.25), signed(), Round(0.5), Round(1.0), conv(12, 8, 1)]
    model = whole(Calls(forward, *layers))
    engine = compiled(model, SHAPE)
    assert_same(engine, model, SHAPE)


def test_pooled_joined_shuffled_split_and_padded_bytes():
    def forward(m, x):
        x = m[0](x)
        a, b = torch.relu(m[1](x)), torch.relu(m[2](x))
        y = m[3](torch.cat([a, b], 1))
        y = nn.functional.max_pool2d(y, 3, 2, 1)
        y = nn.functional.channel_shuffle(y, 2)
        y, z = y.chunk(2, 1)
        z = nn.functional.pad(z[:, :, ::2, 1:], (0, 0, 0, 0, 3, 2))
        return m[4](y), m[5](z)

    layers = [Round(), conv(12, 7, 1), conv(12, 5, 3, padding=1), Round(0.25), conv(6, 8, 3), conv(11, 4, 1)]
    model = whole(Calls(forward, *layers))
    engine = compiled(model, SHAPE)
    x = inputs(SHAPE, seed=5)
    for ours, theirs in zip(engine(*x), model(*x), strict=True):
        assert torch.equal(ours, theirs)
    found = ops(engine)
    assert found.count("quad_taps") == 4 and found.count("quantize") == 1 and "dequantize" not in found


def test_padding_that_is_rounded_becomes_part_of_the_layer_behind():
    def forward(m, x):
        return m[3](m[2](nn.functional.pad(m[1](m[0](x)), (0, 1, 0, 1))))

    model = whole(Calls(forward, Round(), conv(12, 8, 1), Round(0.5), conv(8, 8, 3)))
    engine = compiled(model, SHAPE)
    assert_same(engine, model, SHAPE)
    assert ops(engine) == ["copy", "quantize", "quad_taps", "quad_taps", "copy"]


def test_windows_of_padding_alone_are_minus_infinity():
    """Dilated windows may miss the image: bytes have no number for what is the largest of nothing."""

    def forward(m, x):
        y = m[2](m[1](m[0](x)))
        return nn.functional.max_pool2d(y, 2, 2, 1, dilation=4), m[4](
            m[3](nn.functional.max_pool2d(m[1](x), 2, 2, 1, 4))
        )

    shape = (1, 12, 3, 3)
    model = whole(Calls(forward, Round(), conv(12, 8, 1), signed(), signed(), conv(8, 8, 1)))
    engine = compiled(model, shape)
    x = inputs(shape, seed=5)
    pooled, read = model(*x)
    assert pooled.isinf().any() and read.isfinite().all()
    assert torch.equal(engine(*x)[0], pooled) and torch.equal(engine(*x)[1], read)


def test_a_classifier_rounds_the_features_that_it_reads():
    model = whole(
        named(signed(), conv(12, 20, 3), nn.ReLU(), Round(0.25), nn.AvgPool2d((9, 8)), Round(2**-4), nn.Flatten(),
              nn.Linear(20, 30), nn.ReLU(), Round(0.5), nn.Linear(30, 11))
    )  # fmt: skip
    shape = (3, 12, 11, 10)
    engine = compiled(model, shape)
    assert ops(engine).count("quad_rows") == 2 and ops(engine).count("quantize") == 1
    assert_same(engine, model, shape)


def test_features_of_an_image():
    model = whole(
        named(Round(), conv(12, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), Round(0.5), nn.Linear(72, 9))
    )
    engine = compiled(model, (2, 12, 10, 8))
    assert {"quad_taps", "quad_pool", "quad_rows"} <= set(ops(engine))
    assert_same(engine, model, (2, 12, 10, 8))


def test_tokens():
    model = whole(named(signed(), nn.Linear(16, 24), signed(0.5), nn.Linear(24, 10)))
    for shape in ((2, 9, 16), (1, 3, 16)):
        engine = compiled(model, shape)
        assert ops(engine).count("quad_taps" if shape[1] == 9 else "quad_rows") == 2
        assert_same(engine, model, shape)


def test_activations_and_other_steps_are_tables():
    act = [nn.Hardswish(), nn.LeakyReLU(0.25), nn.SiLU()]
    model = whole(
        named(signed(), conv(12, 10, 1), signed(0.125), act[0], Round(0.25, (-3, 60)), act[1], signed(0.5),
              conv(10, 9, 3), signed(0.25), act[2], Round(2.0**-3), nn.MaxPool2d(2), signed(0.5), conv(9, 7, 1))
    )  # fmt: skip
    engine = compiled(model, SHAPE)
    assert ops(engine).count("quad_table") == 4 and "pointwise" not in ops(engine)
    x = inputs(SHAPE, seed=4)
    torch.testing.assert_close(engine(*x), model(*x), rtol=0, atol=0)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_images(threads):
    model = whole(
        named(signed(), conv(3, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Round(0.25),
              conv(16, 16, 3, padding=1, groups=16), Round(0.5), conv(16, 12, 1), nn.ReLU(), Round(1.0),
              conv(12, 8, 5, padding=2))
    )  # fmt: skip
    shape = (1, 3, 61, 66)
    engine = compiled(model, shape, threads=threads)
    assert any("slabs" in s.fields for s in engine.artifact.program.steps if s.op == "quad_taps")
    assert_same(engine, model, shape)


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_tiles_of_16_rows_and_taps(monkeypatch, isa, sparsity):
    """What the tuner offers only to CPUs that multiply matrices, on all of them."""
    monkeypatch.setattr(candidates, "allowed_rows", lambda w: [])
    monkeypatch.setattr(_native, "multiplies_matrices", lambda isa: True)
    layers = [layer for name, layer in LAYERS.items() if "groups" not in name and "depthwise" not in name]
    tails = itertools.cycle(TAILS.values())
    models = [named(Round(2**-4, SIGNED), layer(), *tail()) for layer, tail in zip(layers, tails, strict=False)]
    models.append(named(Round(2**-4), conv(12, 48, 3, padding=1, groups=3)))
    model, shapes = whole(Apart(models), sparsity=sparsity), [SHAPE] * len(models)
    engine = compiled(model, *shapes, isa=isa)
    tall = [s for s in engine.artifact.program.steps if s.op == "quad_taps" and s.fields["mb"] == TILE]
    assert len(tall) == len(models)
    x = inputs(*shapes)
    for ours, theirs in zip(engine(*x), model(*x), strict=True):
        assert torch.equal(ours, theirs) and len(theirs.unique()) > 3


def test_matrices_are_multiplied_where_the_cpu_does(monkeypatch):
    """By the cost model: dense layers of many outputs, and not on a CPU that has no such instruction."""
    model, shape = whole(named(Round(2**-4), conv(64, 64, 3, padding=1))), (1, 64, 14, 14)
    for matrices in (False, True):
        monkeypatch.setattr(_native, "multiplies_matrices", lambda isa, found=matrices: found)
        engine = compiled(model, shape)
        (step,) = (s for s in engine.artifact.program.steps if s.op == "quad_taps")
        assert (step.fields["mb"] == TILE) == matrices
        assert_same(engine, model, shape)


def test_tuned_saved_loaded_and_retuned(tmp_path):
    model = whole(named(Round(), conv(16, 32, 3, padding=1), nn.ReLU(), Round(0.5), conv(32, 24, 1)), sparsity=0.7)
    shape = (1, 16, 14, 14)
    engine = openwork.compile(model, inputs(shape)[0], threads=2)
    assert_same(engine, model, shape)
    engine.save(tmp_path / "model.openwork")
    loaded = openwork.load(tmp_path / "model.openwork")
    assert_same(loaded, model, shape)
    assert_same(loaded.retune(), model, shape)
    arrays = [s.arrays["value"].dtype for s in loaded.artifact.program.steps if s.op == "quad_taps"]
    assert arrays == ["int8", "int8"]
    assert all(row["tried"] for row in rows(engine))


def test_every_instruction_set_gives_the_same_bits():
    model = whole(named(signed(), conv(12, 10, 3, padding=1), Round(0.5), conv(10, 6, 3)))
    for isa in openwork.engine._native.isas():
        assert_same(compiled(model, SHAPE, isa=isa), model, SHAPE)


CAPTURED = {
    "numbers": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -127, 127),
    "tensors": lambda x: torch.fake_quantize_per_tensor_affine(
        x, torch.tensor(0.05), torch.tensor(0, dtype=torch.int32), 0, 255
    ),
    "four bits": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.3, 0, -7, 7),
    "a pair": lambda x: torch.ops.quantized_decomposed.dequantize_per_tensor(
        torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.05, 0, -128, 127, torch.int8),
        *(0.05, 0, -128, 127, torch.int8),
    ),
}
LEFT = {
    "a zero point": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, 3, 0, 255),
    "16 bits": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -32767, 32767),
    "each channel": lambda x: torch.fake_quantize_per_channel_affine(
        x, torch.full((12,), 0.05), torch.zeros(12, dtype=torch.int32), 1, -127, 127
    ),
}


def test_every_way_to_round_is_captured_and_others_run_in_pytorch():
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    ways = {**CAPTURED, **LEFT}
    model = Calls(lambda _, x: tuple(round(x) for round in ways.values()))
    engine = compiled(model, SHAPE)
    assert ops(engine).count("quantize") == ops(engine).count("dequantize") == len(CAPTURED)
    assert len(left_to_torch(engine)) == len(LEFT) and all("fake_quantize" in op for op in left_to_torch(engine))
    x = inputs(SHAPE)[0] * 5
    x[0, 0, 0, 0] = float("nan")
    for name, ours, theirs in zip(ways, engine(x), model(x), strict=True):
        begin = int(name == "a pair")  # which leaves open what NaN becomes
        assert torch.equal(ours[..., begin:], theirs[..., begin:]), name


def test_weights_that_are_rounded_for_each_channel_in_the_model():
    layer = conv(12, 8, 3)
    scale, zero = torch.rand(8) / 50 + 0.001, torch.zeros(8, dtype=torch.int32)

    def forward(m, x):
        weight = torch.fake_quantize_per_channel_affine(m[0].weight, scale, zero, 0, -127, 127)
        return nn.functional.conv2d(m[1](x), weight, m[0].bias)

    model = Calls(forward, layer, Round()).eval()
    engine = compiled(model, SHAPE)
    assert ops(engine).count("quad_taps") == 1
    assert_agrees(engine, model, SHAPE)


def test_layers_that_cannot_be_integers_stay_floats():
    fine, scattered, first = conv(12, 12, 1), conv(12, 12, 1), conv(12, 12, 1)
    model = whole(named(first, Round(), scattered, Round(), fine))
    torch.manual_seed(0)
    scattered.weight.data.normal_()
    engine = compiled(model, SHAPE)
    assert [row["type"] for row in rows(engine)] == ["float32", "float32", "int8"]
    assert engine.provenance["int8"] == {"layers": 1, "of": 3} and engine.explain(1).totals["int8_layers"] == 1
    assert engine.provenance["relative_error"] < 1e-3 and "max_relative_error" not in engine.provenance


def test_a_cpu_without_dot_products_of_bytes_is_named():
    model = whole(named(Round(), conv(12, 8, 1)))
    engine = compiled(model, SHAPE, isa="avx2" if "avx2" in openwork.engine._native.isas() else "base")
    assert any("without the CPU's dot products of bytes" in notice for notice in engine.notices)
    plain = compiled(conv(12, 8, 1), SHAPE, isa=engine.isa)
    assert not any("dot products" in notice for notice in plain.notices)


def test_an_engine_that_rounds_otherwise_is_found(monkeypatch):
    monkeypatch.setattr(Bytes, "inverse", property(lambda self: 0.9 / self.scale))
    with pytest.raises(CompileError, match=r"of all outputs together \(limit 0.02\)"):
        compiled(whole(named(Round(), conv(12, 8, 1))), SHAPE)


def test_nested_levels_are_refused_by_name():
    model, sparser = (whole(named(Round(), conv(12, 8, 1)), sparsity=s) for s in (0, 0.5))
    with pytest.raises(CompileError, match="quad_taps, which holds one level"):
        compiled(model, SHAPE, levels=[sparser])


class Attention(nn.Module):
    """A block of a transformer whose matrices read rounded tokens; norms, softmax and additions are floats."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.rounds = nn.ModuleList(signed(s) for s in (0.03, 0.02, 0.03, 0.05))

    def forward(self, x):
        n, s, c = x.shape
        q, k, v = self.qkv(self.rounds[0](self.norms[0](x))).reshape(n, s, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, s, c)
        x = x + self.out(self.rounds[1](y))
        y = nn.functional.gelu(self.up(self.rounds[2](self.norms[1](x))))
        return x + self.down(self.rounds[3](y))


def test_a_transformer_with_islands_of_floats():
    model = whole(nn.Sequential(Attention(), Attention()))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 0.5
    engine = compiled(model, (2, 10, 32))
    assert left_to_torch(engine) == [] and [row["type"] for row in rows(engine)].count("int8") == 8
    assert engine.provenance["relative_error"] < 1e-2
    assert steps_of(engine, "quantize") == 2  # of what attention gives; norms and layers round their own results
    assert all("y" not in s.fields for s in engine.artifact.program.steps if s.op == "layer_norm")


def steps_of(engine, op: str) -> int:
    return sum(s.op == op for s in engine.artifact.program.steps)


class Stream(nn.Module):
    """Norms whose results layers read rounded, on one grid or two, and additions as they are."""

    def __init__(self, second: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(30) for _ in range(2))
        self.up, self.side, self.down = nn.Linear(30, 22), nn.Linear(30, 22), nn.Linear(22, 30)
        self.rounds = nn.ModuleList([signed(0.03), signed(second), Round(0.05)])

    def forward(self, x):
        x = self.norms[0](x)
        y = nn.functional.silu(self.up(self.rounds[0](x))) + self.side(self.rounds[1](x))
        y = self.rounds[2](nn.functional.relu(y))
        return self.norms[1](x + self.down(y))


@pytest.mark.parametrize(("second", "separate"), [(0.03, 0), (0.02, 1)], ids=["one grid", "two grids"])
def test_a_norm_gives_floats_and_bytes(second, separate):
    model = whole(nn.Sequential(Stream(second)))
    engine = compiled(model, (2, 19, 30))
    assert left_to_torch(engine) == [] and [row["type"] for row in rows(engine)].count("int8") == 3
    assert engine.provenance["relative_error"] < 1e-2
    norms = [s.fields for s in engine.artifact.program.steps if s.op == "layer_norm"]
    assert [("y" in f, "quads" in f) for f in norms] == [(True, True), (True, False)]
    assert steps_of(engine, "quantize") == separate


NETWORKS = {"cifar10_resnet20": (3, 32, 32), "mobilenetv2": (3, 32, 32), "shufflenetv2": (3, 64, 64)}


class RoundRows(nn.Module):
    """Rounds every row by its own largest value."""

    def __init__(self, high: int = 127) -> None:
        super().__init__()
        self.high = high

    def forward(self, x):
        return round_rows(x, self.high)


def tokens_of_their_own(shape, high=127, seed=1):
    """Tokens whose largest values are powers of two times `high`, so that no scale has roundings; one is all zeros."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(-4 * high, 4 * high + 1, shape, generator=random) / 4  # quarters: many are ties
    x[..., 0] = high
    x = x * 2.0 ** -torch.randint(5, 12, (*shape[:-1], 1), generator=random)
    x.flatten(0, -2)[-1] = 0
    return x


def assert_same_tokens(model, shape, high=127, **options):
    """An engine that gives the same bits for such tokens."""
    engine = openwork.compile(
        model, tokens_of_their_own(shape, high, seed=2), **{"threads": 1, "tune": "off", **options}
    )
    x = tokens_of_their_own(shape, high)
    with torch.no_grad():
        found, wanted = engine(x), model(x)
    assert torch.equal(found, wanted) and len(wanted.unique()) > 3
    return engine


@pytest.mark.parametrize("high", [127, 7])
@pytest.mark.parametrize("shape", [(2, 9, 16), (1, 40, 18), (1, 3, 16), (5, 13)], ids=str)
def test_tokens_that_are_rounded_by_themselves(shape, high):
    model = whole(named(RoundRows(high), nn.Linear(shape[-1], 21), nn.ReLU()))
    engine = assert_same_tokens(model, shape, high, threads=2)
    few = len(shape) == 2 or shape[1] == 3
    assert ops(engine).count("quad_rows" if few else "quad_taps") == 1
    assert ops(engine).count("quantize_tokens") == (0 if few else 1) and "dequantize" not in ops(engine)


def test_tokens_that_are_rounded_by_themselves_and_become_bytes_or_get_a_residual():
    def forward(m, x):
        rounded = m[0](x)
        return m[2](m[1](m[3](rounded)) + rounded) + m[4](rounded)

    layers = [RoundRows(), signed(0.25), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)]
    for shape in ((2, 9, 16), (1, 2, 16)):
        engine = openwork.compile(whole(Calls(forward, *layers)), tokens_of_their_own(shape), threads=1, tune="off")
        x = tokens_of_their_own(shape)
        torch.testing.assert_close(engine(x), Calls(forward, *layers)(x), rtol=1e-6, atol=1e-6)
        assert ops(engine).count("quad_taps" if shape[1] == 9 else "quad_rows") >= 1


def test_layer_norm_rounds_tokens_by_themselves():
    def forward(m, x):
        x = m[0](x)
        y = m[1](x)
        return m[4](y) + m[2](m[1](x)) + m[3](y), x

    norm = nn.LayerNorm(16)
    layers = [norm, RoundRows(), *(nn.Linear(16, 16) for _ in range(3))]
    model = whole(Calls(forward, *layers))
    engine = compiled(model, (2, 9, 16))
    assert ops(engine).count("layer_norm") == 1 and "quantize_tokens" not in ops(engine)
    x = inputs((2, 9, 16))[0]
    for ours, theirs in zip(engine(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_rounded_tokens_that_a_layer_of_floats_reads():
    """Its weights lie on no grid, or it is no layer."""
    for last in (nn.Linear(16, 8), nn.LayerNorm(16), nn.Identity()):
        model = named(RoundRows(), last).eval()
        for shape in ((2, 9, 16), (1, 2, 16)):
            engine = openwork.compile(model, tokens_of_their_own(shape), threads=1, tune="off")
            assert "quad_taps" not in ops(engine) and left_to_torch(engine) == []
            x = tokens_of_their_own(shape)
            torch.testing.assert_close(engine(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("change", ["another axis", "another scale", "another least", "more than bytes hold"])
def test_what_only_looks_like_rounding_of_tokens_is_computed_as_it_is_written(change):
    class Odd(nn.Module):
        def forward(self, x):
            high = 254 if change == "more than bytes hold" else 127
            axis = (-2, -1) if change == "another axis" else -1
            scale = x.abs().amax(axis, keepdim=True).clamp(min=1e-3 if change == "another least" else LEAST) / high
            again = scale * 2 if change == "another scale" else scale
            return torch.round(x * scale.reciprocal()) * again

    model = whole(named(Odd(), nn.Linear(16, 8)))
    engine = assert_same_tokens(model, (2, 9, 16))
    assert not {"quantize_tokens", "quad_taps"} & set(ops(engine))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("cifar10_resnet20", 4),
        pytest.param("mobilenetv2", 8, marks=pytest.mark.slow),
        pytest.param("shufflenetv2", 8, marks=pytest.mark.slow),
    ],
)
def test_networks_whose_layers_round_their_inputs(name, bits):
    shape = (1, *NETWORKS[name])
    model = simulate(lively(importlib.import_module(f"openwork.models.{name}").build()), inputs(shape, seed=3)[0], bits)
    engine = compiled(model, shape)
    found = engine.provenance["int8"]
    assert found["layers"] == found["of"] and left_to_torch(engine) == []
    assert engine.provenance["relative_error"] <= 2e-2


class Lopsided(nn.Module):
    """Rounding around a number that is not zero, which is PyTorch's to compute."""

    def forward(self, x):
        return torch.fake_quantize_per_tensor_affine(x, 0.02, 10, quant_min=0, quant_max=255)


def test_roundings_that_pytorch_computes_may_tip_over_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), Lopsided()), torch.randn(1, 3, 16, 16)
    assert "relative_error" in openwork.compile(model, x, threads=1, tune="off").provenance
    with check._Unrounded():
        plain = model(x)
    assert torch.equal(plain, model[0](x).clamp(-0.2, 4.9)) and not torch.equal(plain, model(x))


def test_last_bits_that_a_network_makes_much_of_are_no_difference_but_more_than_its_rounding_is(monkeypatch):
    model = nn.Sequential(
        Round(2**-4, SIGNED), nn.Conv2d(4, 8, 1), nn.ReLU(), Round(0.5), nn.Conv2d(8, 4, 1, bias=False)
    )
    model, x = whole(model), torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        exact = nn.Sequential(*(layer for layer in model if not isinstance(layer, Round)))(x)
        rounding = model(x) - exact
    assert rounding.norm() > 0.1 * exact.norm()  # far beyond the tolerance of networks that make little of last bits
    run = Engine._run
    for part, refused in ((1.2, False), (2.0, True)):
        monkeypatch.setattr(
            Engine,
            "_run",
            lambda self, arrays, level, p=part: [y - p * rounding.numpy() for y in run(self, arrays, level)],
        )
        if not refused:
            assert (
                openwork.compile(model, x, threads=1, tune="off").provenance["relative_error"] > check.ROUNDED_TOLERANCE
            )
            continue
        with pytest.raises(CompileError, match="of all outputs together"):
            openwork.compile(model, x, threads=1, tune="off")
