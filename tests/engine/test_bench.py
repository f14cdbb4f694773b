"""`bench` measures every side fairly, refuses wrong answers, and says what it measured."""

import json
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from openwork import models
from openwork.engine import bench as bench_module
from openwork.engine.bench import bench
from openwork.engine.peers.base import Peer
from openwork.engine.timing import PAUSE_SECONDS, measure, ratio_interval, rest
from openwork.errors import EngineError, UsageError


@dataclass(frozen=True)
class Spec:
    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class FakeEngine:
    """An engine that is a torch module with an offset on its outputs."""

    isa = "none"
    precision = "fp32"

    def __init__(self, module, shape, offset=0.0, provenance=None, threads=1):
        self.module, self.offset, self.provenance, self.threads = module, offset, provenance or {}, threads
        self.inputs = (Spec("x", shape),)

    def __call__(self, x):
        with torch.inference_mode():
            return self.module(torch.from_numpy(x)).numpy() + self.offset


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()


@pytest.fixture
def few_calls(monkeypatch):
    monkeypatch.setattr("openwork.engine.timing.BLOCK_SECONDS", 1e-4)
    monkeypatch.setattr("openwork.engine.timing.PAUSE_SECONDS", 0.001)


def test_measure_finds_the_slower_side_and_times_all_sides_in_every_round(few_calls):
    called = []

    def side(name, seconds):
        def run():
            called.append(name)
            time.sleep(seconds)

        return run

    found = measure([side("fast", 0.001), side("slow", 0.003)], repeats=4, warmup=1)
    assert found.shape == (2, 4)
    assert (found[0] >= 0.001).all() and (found[1] >= 0.003).all()
    # After warm-up and calibration (2 calls a side), a round is 1 + 3 calls of each side without a break.
    rounds = [called[4 + 8 * i : 4 + 8 * (i + 1)] for i in range(4)]
    assert all(sorted(r) == ["fast"] * 4 + ["slow"] * 4 and r[:4] == r[:1] * 4 for r in rounds)
    assert len({r[0] for r in rounds}) == 2, "the order must change between rounds"


def test_a_turn_begins_when_no_thread_works_any_more(monkeypatch):
    """As OpenMP's threads do, one goes on spinning after its side's turn."""
    until, longest = 0.0, 0.0

    def spin():
        nonlocal longest
        last, longest = time.perf_counter(), 0.0
        while last < until:
            sum(range(1000))
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    for _ in range(20):
        until = time.perf_counter() + 0.15
        thread = threading.Thread(target=spin)
        thread.start()
        rest()
        rested = time.perf_counter()
        thread.join()
        if longest < PAUSE_SECONDS / 2:  # else others on this machine kept the thread from its core: it did not work
            break
    assert rested >= until
    monkeypatch.setattr("openwork.engine.timing.REST_LIMIT_SECONDS", 0.05)
    until = time.perf_counter() + 1
    thread = threading.Thread(target=spin)
    thread.start()
    with pytest.raises(EngineError, match=r"still work 0\.05 s after an inference.*unset OMP_WAIT_POLICY"):
        rest()
    thread.join()


def test_a_side_of_another_process_is_timed_there(few_calls):
    class Remote:
        asked: list[int] = []  # noqa: RUF012

        def __call__(self):
            raise AssertionError("timed from outside")

        def block(self, calls):
            self.asked.append(calls)
            return 0.002

    found = measure([lambda: None, Remote()], repeats=3, warmup=2)
    assert found[1].tolist() == [0.002] * 3 and Remote.asked == [2, 3, 3, 3]


def test_the_interval_holds_the_ratio_and_shrinks_with_the_spread():
    generator = np.random.default_rng(1)
    ours = 1 + 0.01 * generator.standard_normal(40)
    ratio, low, high = ratio_interval(3 * ours, ours)
    assert (ratio, low, high) == pytest.approx((3, 3, 3)), "what slows whole rounds down must not widen the interval"
    noisy = ratio_interval(3 + 0.5 * generator.standard_normal(40), ours)
    assert noisy[1] < noisy[0] < noisy[2] and 0.1 < noisy[2] - noisy[1] < 1


def test_a_result_has_every_side_a_table_and_json(network, few_calls):
    engine = FakeEngine(network, (1, 1, 8, 8))
    seen = []
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    result = bench(
        engine,
        against=["pytorch"],
        model=dense,
        compiled_from=network,
        repeats=3,
        warmup=1,
        progress=lambda *a: seen.append(a),
    )
    assert [(s.engine, s.network) for s in result.sides] == [
        ("openwork", "compiled"),
        ("pytorch", "compiled"),
        ("pytorch", "dense"),
    ]
    assert result.side("openwork").ratio == 1
    assert result.side("pytorch").difference <= 1e-6 and result.side("pytorch", "dense").difference is None
    side = result.side("pytorch", "dense")
    assert side.min_us <= side.low_us <= side.median_us <= side.high_us
    assert side.median_us == pytest.approx(np.median(side.rounds_us), rel=1e-3)
    again = json.loads(json.dumps(result.to_dict()))
    assert again["sides"][1]["name"] == "pytorch" and again["versions"]["torch"] and again["machine"]["cores"] >= 1
    table = str(result).splitlines()
    assert [line.split("  ")[0].strip() for line in table[1:4]] == ["openwork", "pytorch", "pytorch, dense model"]
    assert "3 rounds in turn" in table[4] and "1 thread," in table[4]
    assert seen[0] == ("preparing pytorch", 0, 2) and seen[-1] == ("measuring", 3, 3)
    with pytest.raises(UsageError, match="openvino was not measured on the dense network"):
        result.side("openvino", "dense")


def test_wrong_answers_are_not_timed(network, few_calls):
    with pytest.raises(EngineError, match=r"differ from those of pytorch by 0\.\d+ \(limit 0\.001\).*compile it again"):
        bench(FakeEngine(network, (1, 1, 8, 8), offset=0.01), ["pytorch"], compiled_from=network, repeats=3)
    with pytest.raises(EngineError, match="differ"):
        bench(FakeEngine(network, (1, 1, 8, 8), offset=np.nan), ["pytorch"], compiled_from=network, repeats=3)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(EngineError, match="not the same network"):
        bench(FakeEngine(network, (1, 1, 8, 8)), ["pytorch"], compiled_from=other, repeats=3)


class Loose(Peer):
    """A peer whose outputs are off by a hundredth of the largest."""

    packages = ("torch",)
    name = "loose"
    error = 0.01

    def prepare(self, model, example_inputs, threads):
        def run():
            with torch.inference_mode():
                y = model(*example_inputs)
            return ((y + self.error * y.abs().max()).numpy(),)

        return run


class LooseInt8(Loose):
    precision = "int8"
    tolerance = 0.05


class TooLooseInt8(Loose):
    precision = "int8"
    tolerance = 0.001


class Unable(Loose):
    def prepare(self, model, example_inputs, threads):
        raise ValueError("no such operator: aten.erf\nand a long story")


def bench_with(monkeypatch, network, *peers):
    found = {peer.__name__: peer for peer in peers}
    monkeypatch.setattr(bench_module.plugins, "find", lambda room, name, base: found[name])
    return bench(FakeEngine(network, (1, 1, 8, 8)), list(found), compiled_from=network, repeats=3, warmup=1)


def test_a_peer_of_low_precision_has_a_tolerance_of_its_own_and_its_error_is_shown(network, few_calls, monkeypatch):
    with pytest.raises(EngineError, match=r"differ from those of loose by 0\.01 \(limit 0\.001\)"):
        bench_with(monkeypatch, network, Loose)
    result = bench_with(monkeypatch, network, LooseInt8)
    side = result.sides[1]
    assert side.precision == "int8" and side.difference == pytest.approx(0.01, rel=0.01)
    assert "1.0e-02" in str(result)


def test_an_engine_in_int8_may_differ_from_floats_and_says_so(network, few_calls, monkeypatch):
    monkeypatch.setattr(FakeEngine, "precision", "int8")
    ours, theirs = bench_with(monkeypatch, network, Loose).sides
    assert (ours.precision, theirs.precision) == ("int8", "fp32") and theirs.difference == pytest.approx(0.01, rel=0.01)
    monkeypatch.setattr(Loose, "error", 0.5)
    with pytest.raises(EngineError, match=r"differ from those of loose by 0\.5 \(limit 0\.3\)"):
        bench_with(monkeypatch, network, Loose)


def test_a_peer_that_is_too_loose_or_cannot_take_the_network_is_left_out_and_that_is_noted(
    network, few_calls, monkeypatch
):
    result = bench_with(monkeypatch, network, TooLooseInt8, Unable)
    assert [side.name for side in result.sides] == ["openwork"]
    assert result.notes == (
        "loose left out: its int8 outputs differ by 0.01 of the largest (limit 0.001)",
        "loose left out: it cannot take this network (ValueError: no such operator: aten.erf)",
    )
    assert str(result).count("note: ") == 2


def test_torchs_threads_are_put_back_also_after_an_error(network, few_calls):
    before = torch.get_num_threads()
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return network(x)

    bench(FakeEngine(network, (1, 1, 8, 8), threads=3), ["pytorch"], compiled_from=Watching(), repeats=3, warmup=1)
    assert set(seen) == {3} and torch.get_num_threads() == before
    with pytest.raises(EngineError):
        bench(FakeEngine(network, (1, 1, 8, 8), 1.0, threads=3), ["pytorch"], compiled_from=network, repeats=3)
    assert torch.get_num_threads() == before


def test_the_compiled_network_is_found_through_the_run_folder(tmp_path, monkeypatch, few_calls):
    from safetensors.torch import save_file

    network = models.resolve("lenet5")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    engine = FakeEngine(network, (1, 1, 28, 28), provenance={"model": "lenet5", "run": str(tmp_path)})
    result = bench(engine, ["pytorch"], repeats=3, warmup=1)
    assert result.side("pytorch").difference <= 1e-6 and not result.notes

    monkeypatch.setattr(
        bench_module, "_open", lambda path, threads: FakeEngine(network, (1, 1, 28, 28), 0, {"model": "lenet5"})
    )
    assert bench(tmp_path / "lenet5.openwork", ["pytorch"], repeats=3, warmup=1).side("pytorch")


def test_without_the_run_folder_the_zoo_model_is_timed_with_random_weights_and_that_is_noted(few_calls):
    engine = FakeEngine(models.resolve("lenet5"), (1, 1, 28, 28), provenance={"model": "lenet5", "run": "/nowhere"})
    result = bench(engine, ["pytorch"], repeats=3, warmup=1)
    assert [(s.engine, s.network, s.difference) for s in result.sides[1:]] == [("pytorch", "dense", None)]
    assert "no outputs were compared" in result.notes[0] and "random weights" in result.notes[0]


def test_without_any_network_the_way_out_is_named(network):
    with pytest.raises(UsageError, match=r"no network to run in pytorch: the artifact names no model.*pass model=$"):
        bench(FakeEngine(network, (1, 1, 8, 8)), ["pytorch"], repeats=3)
    engine = FakeEngine(network, (1, 1, 8, 8), provenance={"model": "my/net.py:factory"})
    with pytest.raises(UsageError, match=r"the artifact comes from my/net\.py:factory"):
        bench(engine, ["pytorch"], repeats=3)


def test_without_a_compiled_network_only_the_dense_one_is_run_and_that_is_noted(network, few_calls):
    result = bench(FakeEngine(network, (1, 1, 8, 8)), ["pytorch"], model=network, repeats=3, warmup=1)
    assert [s.name for s in result.sides] == ["openwork", "pytorch, dense model"]
    assert "names no model" in result.notes[0] and "note: " in str(result)


def test_the_engine_alone_needs_no_network(network, few_calls):
    result = bench(FakeEngine(network, (2, 1, 8, 8)), against=(), repeats=3, warmup=1)
    assert [s.name for s in result.sides] == ["openwork"] and result.batch == 2 and not result.notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 2}, "repeats=2 must be at least 3"),
        ({"warmup": 0}, "warmup=0 at least 1"),
        ({"against": ["onnxruntim"]}, "did you mean onnxruntime"),
        ({"threads": 2}, "threads=2, but the engine has 1; load it with threads=2"),
    ],
)
def test_mistakes_are_named(network, arguments, message):
    with pytest.raises(UsageError, match=message):
        bench(FakeEngine(network, (1, 1, 8, 8)), **{"against": ["pytorch"], **arguments})


def test_random_inputs_fit_masks_and_indices_and_are_always_the_same():
    specs = [((4, 64), "float32"), ((4, 64), "int64"), ((4, 64), "bool")]
    one, again = (bench_module.random_inputs(specs) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert [(a.shape, str(a.dtype)) for a in one] == specs
    assert abs(one[0].std() - 1) < 0.1 and set(one[1].flat) == {0, 1} == set(one[2].flat)
