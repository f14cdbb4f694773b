"""`torch.compile(..., backend="openwork")` gives what PyTorch gives, compiles once a size, says what it leaves out."""

import copy
import logging
import os
import subprocess
import sys
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import Calls, lively
from torch import nn

from openwork.compiler.backend import backend
from openwork.compiler.subgraph import _ENGINES
from openwork.errors import OpenworkNotice

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh():
    _ENGINES.clear()
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Compiled:
    """A compiled function beside what it was made from, and its engines."""

    def __init__(self, function, dynamic=None, **options):
        self.function = function
        self.engines = []
        options = {"tune": "off", "threads": 1, "on_engine": self.engines.append, **options}
        self.compiled = torch.compile(function, backend=backend, dynamic=dynamic, options=options)

    def agrees(self, *inputs):
        """Runs both; everything must be alike but for the last bits of floats."""
        found, wanted = self.compiled(*inputs), self.function(*inputs)
        same(found, wanted)
        return found


def same(found, wanted):
    if isinstance(wanted, torch.Tensor):
        assert type(found) is type(wanted)
        largest = float(wanted.abs().max()) if wanted.is_floating_point() and wanted.numel() else 0
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * largest)
        assert found.requires_grad == wanted.requires_grad
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert type(found) is type(wanted) and len(found) == len(wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            same(ours, theirs)
    else:
        assert found == wanted


def images(batch, seed=0):
    return torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def network():
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    return lively(nn.Sequential(*layers), sparsity=0.4)


def conv(into=3, out=4):
    return nn.Conv2d(into, out, 1)


# ---- outputs ----

PLAIN = torch.ones(2, 3, 1, 1)

FUNCTIONS = {
    "a network": (network, 1),
    "several outputs": (lambda: Calls(lambda own, x: (own[0](x), own[0](x).relu().mean()), conv()), 1),
    "nothing among outputs": (lambda: Calls(lambda own, x: (None, own[0](x), None, 3, "text"), conv()), 1),
    "a dictionary": (lambda: Calls(lambda own, x: {"y": own[0](x), "size": x.shape[0]}, conv()), 1),
    "views of an output": (lambda: Calls(lambda own, x: (lambda y: [y[:, 0], y, y.mT])(own[0](x)), conv()), 1),
    "parts of a value": (lambda: Calls(lambda own, x: own[0](x).split([1, 3], 1), conv()), 1),
    "an expanded value": (lambda: Calls(lambda own, x: own[0](x)[:, :1].expand(2, 5, 6, 6), conv()), 1),
    "attention": (
        lambda: Calls(lambda own, x: own[1](F.scaled_dot_product_attention(x, x, x)), conv(), conv()),
        1,
    ),
    "recurrent": (lambda: Calls(lambda own, x: own[1](own[0](x.flatten(2)))[0], nn.Identity(), nn.LSTM(36, 4)), None),
    "the input again": (lambda: Calls(lambda own, x: (x, own[0](x)), conv()), 1),
    "whole numbers and truth": (lambda: Calls(lambda own, x: (own[0](x).argmax(1), own[0](x) > 0), conv()), 1),
    "half precision": (lambda: Calls(lambda own, x: own[0](x).bfloat16(), conv()), 1),
    "unsupported operators": (lambda: Calls(lambda own, x: torch.erfinv(own[0](x).tanh()) / 2, conv()), 1),
    "an empty output": (lambda: Calls(lambda own, x: (own[0](x), x[:0]), conv()), None),
    "a break": (lambda: Calls(lambda own, x: own[1](broken(own[0](x))), conv(), conv(4, 2)), 2),
    "a branch on data": (lambda: Calls(lambda own, x: own[0](x) if x.sum() > 1e9 else own[1](x), conv(), conv()), 1),
    "text": (
        lambda: Calls(lambda own, x: own[1](own[0](x[:, 0, 0].abs().long())), nn.Embedding(9, 4), nn.Linear(4, 2)),
        1,
    ),
    "a plain tensor as weight": (
        lambda: Calls(lambda own, x: F.conv2d(own[0](x), PLAIN), conv(3, 3)),
        1,
    ),
}


def broken(x):
    torch._dynamo.graph_break()
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.filterwarnings("ignore::openwork.errors.OpenworkNotice")
def test_outputs_are_pytorchs(name, mode):
    build, engines = FUNCTIONS[name]
    both = Compiled(build().eval())
    with mode():
        for seed in range(3):
            both.agrees(images(2, seed))
    assert engines is None or len(both.engines) == engines


def test_a_whole_network_is_one_graph_and_all_native():
    both = Compiled(network())
    with torch.no_grad():
        both.agrees(images(2))
    rows = both.engines[0].explain(repeats=1).rows
    assert {"conv", "linear"} <= {row["op"] for row in rows} and "torch" not in {row["op"] for row in rows}


@pytest.mark.parametrize(
    "function",
    [lambda own, x: (lambda y: (y, y[:, 0]))(own[0](x)), lambda own, x: (lambda y: (y[:, 0], y.mT, y))(own[0](x))],
)
def test_outputs_that_share_memory_do_so_again(function):
    results = []
    model = Calls(function, conv())
    for run in (model, Compiled(model).compiled):
        with torch.no_grad():
            found = run(images(2))
            max(found, key=torch.Tensor.numel).zero_()
            assert not any(t.any() for t in found)
            found = run(images(2))
            min(found, key=torch.Tensor.numel).add_(1)
        results.append(found)
    same(results[1], results[0])


def test_outputs_that_overlap_stay_with_pytorch():
    both = Compiled(Calls(lambda own, x: (lambda y: (y[:, :3], y[:, 1:]))(own[0](x)), conv()))
    with torch.no_grad(), pytest.warns(OpenworkNotice, match="outputs share memory in a way that an engine does not"):
        both.agrees(images(2))


@pytest.mark.parametrize("view", [lambda x: x.flatten(2), lambda x: x[:, 1:], lambda x: x.transpose(2, 3)])
def test_a_view_of_an_input_stays_one(view):
    both = Compiled(Calls(lambda own, x: (own[0](x), view(x)), conv()))
    x = images(2)
    with torch.no_grad(), pytest.warns(OpenworkNotice, match="an output is a view of an input or weight"):
        both.agrees(x)
        both.compiled(x)[1].zero_()
    assert not view(x).any() and not both.engines


def test_layouts_of_inputs_do_not_matter():
    both = Compiled(network())
    with torch.no_grad():
        for x in (images(2), images(2).to(memory_format=torch.channels_last), images(2).mT, images(4)[::2]):
            both.agrees(x)


def test_an_error_is_pytorchs_own():
    model = Calls(lambda own, x: own[1](own[0](x)), nn.Embedding(4, 3), nn.Linear(3, 2))
    both = Compiled(model)
    with torch.no_grad():
        both.agrees(torch.tensor([[1, 2]]))
        with (
            pytest.raises(IndexError, match="index out of range"),
            pytest.warns(OpenworkNotice, match="on these values"),
        ):
            both.compiled(torch.tensor([[1, 4]]))


# ---- one engine a size ----


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_each_batch_is_compiled_once(dynamic):
    both = Compiled(network(), dynamic)
    with torch.no_grad():
        for batch in (2, 3, 2, 4, 3, 1, 5, 1, 2, 5, 4):
            both.agrees(images(batch))
    assert sorted(e.inputs[0].shape[0] for e in both.engines) == [1, 2, 3, 4, 5]


def test_an_axis_marked_as_dynamic():
    both = Compiled(Calls(lambda own, x: own[0](x).flatten(1).sum(1), conv()))
    with torch.no_grad():
        for batch in (2, 7, 2, 7):
            x = images(batch)
            torch._dynamo.mark_dynamic(x, 0)
            both.agrees(x)
    assert len(both.engines) == 2


def test_sizes_as_arguments():
    both = Compiled(Calls(lambda own, x, n: own[0](x)[:, :n].reshape(-1, n), conv()), dynamic=True)
    with torch.no_grad():
        for n in (2, 3, 2, 3, 4):
            both.agrees(images(2), n)
    assert len(both.engines) == 3


def test_more_sizes_than_allowed_run_in_pytorch():
    both = Compiled(network(), dynamic=True, sizes=2)
    with torch.no_grad():
        both.agrees(images(2)), both.agrees(images(3))
        with pytest.warns(
            OpenworkNotice, match=r"compiled for 2 combinations of sizes already; options={'sizes': \.\.\.}"
        ):
            both.agrees(images(4))
        both.agrees(images(5)), both.agrees(images(2))
    assert len(both.engines) == 2


def test_no_samples_run_in_pytorch():
    both = Compiled(network(), dynamic=False)
    with torch.no_grad(), pytest.warns(OpenworkNotice, match="nothing to compute: no input, or an empty one"):
        assert both.agrees(images(0)).shape == (0, 5)


def test_layers_that_share_code_keep_their_own_weights():
    """Dynamo runs one graph for all of them, each time with other weights."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x).relu()

    layers = [Layer() for _ in range(5)]
    options = {"tune": "off", "threads": 1}
    with torch.no_grad():
        wanted = [layer(images(2)) for layer in layers]
        for layer in layers:
            layer.compile(backend=backend, options=options)
        for _ in range(2):
            for layer, want in zip(layers, wanted, strict=True):
                same(layer(images(2)), want)


# ---- weights that change ----


def in_place(model):
    with torch.no_grad():
        model[0].weight.mul_(-2)


def trained(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(images(2)).square().mean().backward()
    optimizer.step()


def loaded(model):
    model.load_state_dict({k: v + 0.5 for k, v in model.state_dict().items()})


def assigned(model):
    model.load_state_dict({k: v + 0.5 for k, v in model.state_dict().items()}, assign=True)


def other_data(model):
    model[4].weight.data = model[4].weight.data * -2


def through_data(model):
    model[4].weight.data.mul_(-2)


def through_numpy(model):
    model[0].weight.detach().numpy()[:] *= -2


def other_parameter(model):
    model[4].bias = nn.Parameter(model[4].bias.detach() + 3)


def statistics(model):
    model[1].train()
    model(images(4))
    model[1].eval()


@pytest.mark.parametrize(
    "change",
    [in_place, trained, loaded, assigned, other_data, through_data, through_numpy, other_parameter, statistics],
    ids=lambda f: f.__name__,
)
@pytest.mark.filterwarnings("ignore::openwork.errors.OpenworkNotice")
def test_weights_that_change_are_never_stale(change):
    both = Compiled(network())
    x = images(2)
    with torch.no_grad():
        before = both.agrees(x)
    change(both.function)
    with torch.no_grad():
        for _ in range(3):
            assert not torch.allclose(both.agrees(x), before, atol=1e-3)
    assert len(both.engines) == 2, "compiled again, once"


def test_weights_of_one_call_are_not_worth_compiling_for():
    both = Compiled(network())
    with torch.no_grad():
        both.agrees(images(2))
        with pytest.warns(OpenworkNotice, match="weights changed; it is compiled again once they stay"):
            for _ in range(4):
                both.function[0].weight.mul_(1.1)
                both.agrees(images(2))
        assert len(both.engines) == 1
        both.agrees(images(2))
    assert len(both.engines) == 2


def test_engines_go_with_their_weights():
    both = Compiled(network())
    with torch.no_grad():
        both.agrees(images(2))
        both.engines.clear()
        before = len(_ENGINES)
        for _ in range(3):
            both.function[0].weight.mul_(1.1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OpenworkNotice)
                both.agrees(images(2)), both.agrees(images(2))
            both.engines.clear()
    assert len(_ENGINES) == before


# ---- what stays with PyTorch, and says so once ----


def test_gradients():
    model = network()
    both = Compiled(model)
    with pytest.warns(OpenworkNotice, match=r"gradients are wanted, .* under torch\.inference_mode\(\)"):
        found = both.compiled(images(2))
    found.sum().backward()
    gradient = model[0].weight.grad.clone()
    model.zero_grad()
    model(images(2)).sum().backward()
    assert torch.equal(gradient, model[0].weight.grad) and not both.engines
    model.requires_grad_(False)
    both.agrees(images(2))
    assert len(both.engines) == 1


def training():
    return network().train()


def dropout():
    return Calls(lambda own, x: F.dropout(own[0](x), 0.5, True), conv())


def attention_dropout():
    return Calls(lambda own, x: F.scaled_dot_product_attention(own[0](x), x, x, dropout_p=0.3), conv(3, 3))


def noise():
    return Calls(lambda own, x: own[0](x) + torch.randn_like(x[:, :1]), conv())


def writing():
    return Calls(lambda own, x: own[0](x.add_(1)), conv())


def double():
    return Calls(lambda own, x: own[0](x).double(), conv())


def not_finite():
    model = network()
    model[4].bias.data[0] = float("nan")
    return model


def nothing_native():
    return Calls(lambda own, x: x.sin().cumsum(0))


REFUSED = {
    training: "changes its own buffer",
    dropout: "draws random numbers",
    attention_dropout: r"draws random numbers \(aten\.scaled_dot_product_attention\.default\)",
    noise: r"draws random numbers \(aten\.randn_like",
    writing: "writes into its input",
    double: r"an output has type torch\.float64",
    not_finite: "values that are NaN or infinite",
    nothing_native: r"none of its operators has a native form: aten\.cumsum\.default, aten\.sin\.default",
}


@pytest.mark.parametrize("build", REFUSED, ids=lambda f: f.__name__)
def test_what_cannot_be_taken_over_runs_in_pytorch_and_says_so_once(build):
    model = build()
    alone = copy.deepcopy(model)
    both = Compiled(model)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(3):
            x, y = images(2, seed), images(2, seed)
            torch.manual_seed(seed)
            found = both.compiled(x)
            torch.manual_seed(seed)
            torch.testing.assert_close((found, x), (alone(y), y), equal_nan=True)
            torch.testing.assert_close(model.state_dict(), alone.state_dict(), equal_nan=True)
    notices = [str(w.message) for w in caught if w.category is OpenworkNotice]
    assert len(notices) == 1 and not both.engines
    with pytest.raises(OpenworkNotice, match=REFUSED[build]):
        raise OpenworkNotice(notices[0])


def test_double_precision_and_autocast():
    both = Compiled(network().double())
    with torch.no_grad(), pytest.warns(OpenworkNotice, match="has type float64, the engine takes float32"):
        both.agrees(images(2).double())
    both = Compiled(network())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), pytest.warns(OpenworkNotice, match="autocast is on"):
        assert both.compiled(images(2)).dtype is torch.bfloat16
    assert not both.engines


def test_weights_made_under_inference_mode():
    with torch.inference_mode():
        both = Compiled(network())
        with pytest.warns(OpenworkNotice, match="build the model outside of it"):
            both.agrees(images(2))
        both.function[0].weight.mul_(2)
        both.agrees(images(2))


def test_a_tensor_that_is_not_plain():
    class Mine(torch.Tensor):
        pass

    both = Compiled(Calls(lambda own, x: own[0](x), conv()))
    with torch.no_grad(), pytest.warns(OpenworkNotice, match="an argument is a Mine on cpu"):
        both.compiled(images(2).as_subclass(Mine))


def test_engines_are_announced_in_the_log(caplog):
    both = Compiled(Calls(lambda own, x: torch.erfinv(own[0](x)), conv()))
    with torch.no_grad(), caplog.at_level(logging.INFO, "openwork"):
        both.compiled(images(2))
    assert "graph of conv2d, erfinv: compiled for (2, 3, 6, 6), " in caplog.text
    assert "left to PyTorch: aten.erfinv.default" in caplog.text


def test_many_threads():
    both = Compiled(network(), dynamic=True)
    with torch.no_grad():
        both.agrees(images(2))

    def work(seed):
        with torch.no_grad():
            for batch in (2, 3, 4):
                both.agrees(images(batch, seed))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert len(both.engines) == 3


# ---- options and the entry point ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tunes": "off"}, "unknown option 'tunes'; did you mean tune"),
        ({"tune": "best"}, "tune='best' is not one of 'off', 'fast', 'thorough'"),
        ({"threads": 0}, "threads=0 is not a whole number"),
        ({"dtype": "int4"}, "dtype='int4' is not"),
        ({"sizes": 0}, "sizes=0 is not a whole number of at least 1"),
        ({"sizes": True}, "sizes=True is not a whole number"),
        ({"on_engine": 3}, "on_engine=3 cannot be called"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=message), torch.no_grad():
        torch.compile(network(), backend=backend, options=options)(images(2))


def test_modes_are_inductors():
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="mode='max-autotune' is one of Inductor's"):
        torch.compile(network(), backend=backend, mode="max-autotune")(images(2))


def test_threads_are_pytorchs_by_default():
    found = []
    torch.set_num_threads(2)
    with torch.no_grad():
        torch.compile(network(), backend=backend, options={"tune": "off", "on_engine": found.append})(images(2))
    assert found[0].threads == 2


BY_NAME = """
import torch
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
engines = []
fast = torch.compile(model, backend="openwork", options={"tune": "off", "on_engine": engines.append})
x = torch.randn(1, 3, 8, 8)
with torch.inference_mode():
    print((fast(x) - model(x)).abs().max().item() < 1e-5, len(engines), "openwork" in torch.compiler.list_backends())
"""


def test_pytorch_finds_it_by_name(tmp_path):
    """With the entry points of pyproject.toml, as an installed package has them."""
    (points,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"].items()
    folder = tmp_path / "openwork-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: openwork\nVersion: 9\n")
    lines = [f"{name} = {target}" for name, target in points[1].items()]
    (folder / "entry_points.txt").write_text("\n".join([f"[{points[0]}]", *lines, ""]))
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", BY_NAME], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout == "True 1 True\n", done.stderr
    assert done.stderr == ""
