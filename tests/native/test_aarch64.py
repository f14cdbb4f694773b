"""The native library as clang compiles it, for x86-64 and for an emulated aarch64, put through this folder's tests.

Says whether results are right. It says nothing about speed: an emulator has none of its own.
"""

import platform
from contextlib import closing
from pathlib import Path

import cross
import numpy as np
import pytest
import remote
import torch
from suite import KERNELS, fuzzed, passed
from torch import nn

import openwork
from openwork.engine import _native

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program():
    cross.emulated(Path())  # skips before anything is built
    return cross.build("aarch64", "openwork_remote") / "openwork_remote"


@pytest.fixture
def there(program):
    """The native library on the emulated machine."""
    with closing(remote.module(cross.emulated(program), _native)) as native:
        yield native


def test_kernels_and_checks(program):
    assert passed(cross.emulated(program), *KERNELS) > 200


def test_random_arguments_never_crash(program):
    refused, ran = fuzzed(cross.emulated(program), 1000)
    assert refused > 500 and ran > 50


@pytest.mark.slow  # zig makes itself a C++ library for each CPU: a minute, once
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 CPU")
def test_what_clang_makes_for_x86():
    program = cross.build("x86_64", "openwork_remote") / "openwork_remote"
    with closing(remote.module([program], _native)) as native:
        assert (native.isas(), native.cpu_features()) == (_native.isas(), _native.cpu_features())
    assert passed([program], *KERNELS) > 200


@pytest.mark.slow
def test_engine_and_every_operator_of_the_compiler(program):
    assert passed(cross.emulated(program), f"{TESTS}/engine/test_engine.py", f"{TESTS}/compiler") > 200


def test_instruction_sets_are_those_that_the_cpu_has(program, there):
    assert there.isas() == ["neondot", "neon", "base", "reference"]
    assert [there.widest_tile("neon", mb) for mb in (1, 2, 4, 8)] == [12, 10, 6, 3]
    assert there.widest_tile("base", 4) == 3
    features = {}
    for cpu in ("cortex-a53", "cortex-a76", "max"):
        with closing(remote.module(cross.emulated(program, cpu), _native)) as native:
            features[cpu] = native.cpu_features()
    assert features["cortex-a53"] == ["asimd"]
    assert features["cortex-a76"] == ["asimd", "asimddp"]
    assert features["max"] == ["asimd", "asimddp", "i8mm", "bf16"]


def test_a_death_at_the_other_end_is_seen(there):
    there.connection.process.kill()
    with pytest.raises(remote.Gone, match="exit code -9 after isas"):
        there.isas()


class Net(nn.Module):
    """Every family of kernels: taps of three shapes, both poolings, a residual addition, a mean, rows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = nn.functional.avg_pool2d(self.pointwise(x + self.depthwise(x)).clamp(0, 6), 2, 1)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("isa", ["neondot", "neon", "base", "reference"])
def test_an_artifact_tuned_on_x86_gives_the_same(there, isa, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(3, 3, 21, 30)
    with torch.no_grad():
        model.stem.weight[torch.rand_like(model.stem.weight) < 0.8] = 0
        wanted = model(x).numpy()
    engine = openwork.compile(model, (x,), threads=2, tune="fast")
    engine.save(tmp_path / "net.openwork")
    monkeypatch.setattr("openwork.engine.native._native", there)
    for threads in (1, 3):
        loaded = openwork.load(tmp_path / "net.openwork", threads=threads, isa=isa)
        assert loaded.isa == isa and {s.op for s in loaded._spec.steps} >= {"taps", "rows", "pool", "mean"}
        np.testing.assert_allclose(loaded(x.numpy()), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
