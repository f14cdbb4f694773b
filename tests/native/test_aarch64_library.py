"""libopenwork on an emulated aarch64: the C example runs artifacts that were compiled on this machine."""

import hashlib
import subprocess

import artifacts
import cross
import numpy as np
import pytest
from builds import ROOT, called


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The command that runs examples/c/run.c, linked as people link it."""
    cross.emulated(ROOT)  # skips before anything is built
    installed = cross.build("aarch64", "install") / "installed"
    program = tmp_path_factory.mktemp("example") / "run"
    flags = ["-O2", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{installed / 'include'}"]
    link = [f"-L{installed / 'lib'}", "-lopenwork", f"-Wl,-rpath,{installed / 'lib'}"]
    source = ROOT / "examples" / "c" / "run.c"
    called(cross.zig(), "cc", "-target", "aarch64-linux-gnu", *flags, source, *link, "-o", program)
    return cross.emulated(program)


def bytes_of(arrays):
    return b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


def images():
    return [np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype(np.float32)]


def words():
    rng = np.random.default_rng(0)
    return [rng.integers(50, size=(2, 6)), np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])]


@pytest.mark.parametrize(("make", "inputs"), [(artifacts.two_outputs, images()), (artifacts.words, words())])
def test_the_example_gives_what_python_gives_on_x86(example, tmp_path, make, inputs):
    engine = make()
    engine.save(tmp_path / "model.openwork")
    (tmp_path / "in").write_bytes(bytes_of(inputs))
    results = engine(*inputs)
    wanted = [y.reshape(-1) for y in (results if isinstance(results, tuple) else (results,))]
    outputs = set()
    for threads in ("1", "2", "3"):
        printed = called(*example, tmp_path / "model.openwork", threads, tmp_path / "in", tmp_path / "out")
        assert printed.count("input ") == len(inputs) and printed.count("output ") == len(wanted)
        outputs.add((tmp_path / "out").read_bytes())
    assert len(outputs) == 1, "another number of threads gave other bits"
    found = np.split(np.frombuffer(outputs.pop(), np.float32), np.cumsum([len(y) for y in wanted])[:-1])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_damage_is_told(example, tmp_path):
    artifacts.two_outputs().save(tmp_path / "model.openwork")
    content = bytearray((tmp_path / "model.openwork").read_bytes())
    content[-5] ^= 1
    (tmp_path / "model.openwork").write_bytes(content)
    done = subprocess.run([*example, tmp_path / "model.openwork", "1", "in", "out"], capture_output=True, text=True)
    assert done.returncode == 1 and "damaged" in done.stderr, done.stderr


def test_hashes_are_those_of_hashlib(tmp_path):
    cross.emulated(ROOT)
    program = cross.build("aarch64", "openwork_hash") / "openwork_hash"
    (tmp_path / "data").write_bytes(data := np.random.default_rng(0).bytes(5000))
    sizes = (0, 1, 55, 56, 63, 64, 65, 119, 120, 4999)
    printed = called(*cross.emulated(program), tmp_path / "data", *map(str, sizes)).split()
    assert printed == [hashlib.sha256(data[:size]).hexdigest() for size in sizes for _ in range(2)]
