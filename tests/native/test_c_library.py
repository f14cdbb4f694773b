"""libopenwork: an artifact made by Python runs in C with the same results, and every mistake is told, not fatal."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import artifacts
import numpy as np
import pytest
import torch
from builds import ROOT, build, called
from library import Engine, Failure, Library, pointers
from torch import nn

sys.path[:0] = [str(ROOT / "tests" / "compiler"), str(ROOT / "tests" / "formats")]

from mutations import corrupted, put_together, sealed, taken_apart, with_header  # noqa: E402 - needs the path above
from small_models import Calls, compiled  # noqa: E402

import openwork  # noqa: E402
from openwork.errors import ArtifactError  # noqa: E402
from openwork.formats import artifact  # noqa: E402
from openwork.formats.artifact import Artifact  # noqa: E402

EXAMPLE = ROOT / "examples" / "c" / "run.c"
HEADER = ROOT / "native" / "include" / "openwork.h"
PAGE = (ROOT / "docs" / "c-api.md").read_text()
BLOCKS = dict(re.findall(r"```(c|cmake)\n(.*?)```", PAGE, re.S))


@pytest.fixture(scope="module")
def installed() -> Path:
    return build(os.environ.get("OPENWORK_LIBRARY_FORM", "library"), "install") / "installed"


@pytest.fixture(scope="module")
def library(installed):
    return Library(installed / "lib" / "libopenwork.so")


@pytest.fixture(scope="module")
def engine():
    return artifacts.two_outputs()


@pytest.fixture(scope="module")
def path(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifacts") / "two.openwork"
    engine.save(path)
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    engine = artifacts.words()
    path = tmp_path_factory.mktemp("artifacts") / "words.openwork"
    engine.save(path)
    return engine, path


def images(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 2, 8, 8)).astype(np.float32)


def test_the_level_is_chosen_from_call_to_call(library):
    engine, levels = artifacts.nested()
    loaded, x = (
        Engine(library, artifact.to_bytes(engine.artifact)),
        np.random.default_rng(0).standard_normal((3, 4, 8, 8)),
    )
    x = x.astype(np.float32)
    assert loaded.levels() == engine.levels == levels
    for level in (2, 1, 3, 2):
        (found,) = loaded.run(x, batch=3, level=level)
        np.testing.assert_allclose(found, engine(x, level=level), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(loaded.run(x, batch=3)[0], loaded.run(x, batch=3, level=1)[0])
    for level in (0, 4, -(2**31), 2**31 - 1):
        with pytest.raises(Failure, match=r"level -?\d+ is not in 1\.\.3"):
            loaded.run(x, batch=3, level=level)
    assert Engine(library, artifact.to_bytes(artifacts.two_outputs().artifact)).levels() == 1


# ---- as people install it ----


def test_only_the_functions_of_the_header_are_exported(installed):
    exported = called("nm", "-D", "--defined-only", installed / "lib" / "libopenwork.so")
    declared = re.findall(r"^OPENWORK_API .*?(openwork_\w+)\(", HEADER.read_text(), re.M)
    assert len(declared) == 13
    assert sorted(line.split()[2] for line in exported.splitlines()) == sorted(declared)


@pytest.mark.parametrize("compiler", ["cc -std=c99", "c++ -std=c++11 -x c++", "cc -std=c17"])
def test_the_header_stands_alone(compiler, installed, tmp_path):
    (tmp_path / "a.c").write_text("#include <openwork.h>\n#include <openwork.h>\n")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{installed / 'include'}"]
    called(*shlex.split(compiler), *strict, tmp_path / "a.c")


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def run_example(program: Path, path: Path, engine: openwork.Engine, tmp_path: Path) -> None:
    x = images()
    x.tofile(tmp_path / "input")
    printed = called(program, path, "2", tmp_path / "input", tmp_path / "output")
    assert printed.splitlines()[0] == "input x: float32 [2, 2, 8, 8]" and printed.count("\noutput ") == 2
    wanted = b"".join(y.tobytes() for y in engine(x))
    assert (tmp_path / "output").read_bytes() == wanted


def test_the_example_built_with_pkg_config_gives_what_python_gives(installed, engine, path, tmp_path):
    where = {"PKG_CONFIG_PATH": str(installed / "lib" / "pkgconfig")}
    flags = shlex.split(called("pkg-config", "--cflags", "--libs", "openwork", **where))
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    called("cc", *strict, EXAMPLE, "-o", tmp_path / "run", *flags, f"-Wl,-rpath,{installed / 'lib'}")
    run_example(tmp_path / "run", path, engine, tmp_path)


PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(example LANGUAGES C)
add_executable(main {source})
{page}"""


def test_the_example_built_with_cmake_gives_what_python_gives(installed, engine, path, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(source=EXAMPLE, page=BLOCKS["cmake"]))
    called("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={installed}")
    called("cmake", "--build", tmp_path / "build")
    run_example(tmp_path / "build" / "main", path, engine, tmp_path)


def test_the_page_shows_a_program_that_runs(installed, engine, path, tmp_path):
    one = compiled(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, 5)).eval(), (1, 2, 8, 8))
    one.save(tmp_path / "model.openwork")
    (tmp_path / "main.c").write_text(BLOCKS["c"])
    (command,) = re.findall(r"^cc main\.c .*", PAGE, re.M)
    where = {"PKG_CONFIG_PATH": str(installed / "lib" / "pkgconfig"), "LD_LIBRARY_PATH": str(installed / "lib")}
    printed = called("sh", "-c", f"cd {tmp_path} && {command} -std=c99 -Wall -Wextra -Werror && ./main", **where)
    assert float(printed) == pytest.approx(one(np.zeros((1, 2, 8, 8), np.float32))[0, 0], rel=1e-4)


def test_the_page_names_every_function():
    declared = set(re.findall(r"^OPENWORK_API .*?(openwork_\w+)\(", HEADER.read_text(), re.M))
    assert declared == set(re.findall(r"`(openwork_\w+)\(", PAGE))


def test_the_example_says_what_is_wrong(installed, path, tmp_path):
    flags = [f"-I{installed / 'include'}", f"-L{installed / 'lib'}", "-lopenwork", f"-Wl,-rpath,{installed / 'lib'}"]
    called("cc", EXAMPLE, "-o", tmp_path / "run", *flags)
    (tmp_path / "short").write_bytes(bytes(5))
    for arguments, message in [
        (["none.openwork", "1", "short", "out"], "cannot read none.openwork: No such file or directory"),
        ([path, "1", tmp_path / "short", "out"], "the input is too short"),
        ([path, "-1", tmp_path / "short", "out"], "threads=-1 is not a whole number in 0..1024"),
        ([], "usage: run"),
    ]:
        done = subprocess.run([tmp_path / "run", *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith(f"run: {message}"), done.stderr


# ---- what the functions do ----


def test_version(library):
    assert library.version().decode() == openwork.__version__


def test_inputs_and_outputs_are_described(library, engine, path):
    loaded = Engine(library, path)
    assert loaded.inputs() == [(s.name, s.shape, s.dtype) for s in engine.inputs]
    assert loaded.outputs() == [(s.name, s.shape, s.dtype) for s in engine.outputs]
    tensor = library.output(loaded.handle, 1).contents
    assert tensor.bytes == 4 * np.prod(engine.outputs[1].shape)


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
@pytest.mark.parametrize("memory", [False, True])
def test_outputs_are_those_of_python(library, engine, path, threads, memory):
    loaded = Engine(library, path.read_bytes() if memory else path, threads)
    for seed in range(2, 5):
        x = images(seed)[:2]
        for ours, theirs in zip(loaded.run(x), engine(x), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("largest", "bits"), [(1, 2), (3, 3), (7, 4), (8, None)])
def test_weights_of_few_bits_are_unpacked(library, tmp_path, largest, bits):
    engine, path = artifacts.few_bits(largest), tmp_path / "few.openwork"
    engine.save(path)
    head, arrays = taken_apart(path.read_bytes())
    found = [how["bits"] for step in head["program"]["steps"] for how in step.get("packed", {}).values()]
    assert found == [bits] * (3 if bits else 0)
    x = np.random.default_rng(0).standard_normal((1, 5, 6, 7)).astype(np.float32)
    for again in (Engine(library, path).run(x)[0], openwork.load(path, threads=1)(x)):
        np.testing.assert_array_equal(again, engine(x))
    if bits is None:
        return

    at = next(i for i, step in enumerate(head["program"]["steps"]) if step.get("packed"))
    for how in ({"bits": 5}, {"bits": 0}, {"shape": [2**60, 16]}, {"shape": [-1]}, {"shape": [1]}, {"bits": "2"}):
        changed = json.loads(json.dumps(head))
        changed["program"]["steps"][at]["packed"]["value"].update(how)
        path.write_bytes(put_together(json.dumps(changed), arrays))
        with pytest.raises(Failure, match=r"is damaged: step"):
            Engine(library, path)
        with pytest.raises(ArtifactError, match="is damaged: its program cannot be read"):
            openwork.load(path)


@pytest.mark.parametrize("offset", range(1, 8))
def test_content_in_memory_may_lie_anywhere(library, engine, path, offset):
    loaded = Engine(library, path.read_bytes(), offset=offset)
    np.testing.assert_array_equal(loaded.run(images())[0], engine(images())[0])


@pytest.mark.parametrize("threads", [16, 64])
def test_more_threads_than_cores_give_the_same(library, engine, path, threads):
    loaded = Engine(library, path, threads)
    for _ in range(3):
        np.testing.assert_array_equal(loaded.run(images())[0], engine(images())[0])


def test_no_samples_touch_nothing(library, path):
    handle = Engine(library, path)
    assert library.run_batch(handle.handle, 0, None, None) == 0


def test_not_finite_passes_and_is_forgotten(library, engine, path):
    loaded, odd = Engine(library, path), images()
    odd[0, 0, 3, 3], odd[1, 1, 2, 2] = np.nan, np.inf
    for x in (images(), odd, images()):
        for ours, theirs in zip(loaded.run(x), engine(x), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(loaded.run(odd)[0]).any() and np.isfinite(loaded.run(images())[0]).all()


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 4, 7])
def test_any_batch(library, engine, path, batch):
    found, wanted = Engine(library, path).run(images(batch), batch=batch), engine(images(batch))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("batch", [None, 2, 5])
def test_whole_numbers(library, words, batch):
    engine, path = words
    loaded = Engine(library, path)
    assert [dtype for _, _, dtype in loaded.inputs()] == ["int64", "int64"]
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(50, size=(batch or 2, 6)), rng.integers(2, size=(batch or 2, 6))
    np.testing.assert_array_equal(loaded.run(ids, mask, batch=batch)[0], engine(ids, mask))


def in_turns(make: Callable[[int], openwork.Engine], samples: int) -> openwork.Engine:
    """The engine of one sample, on the buffers of several."""
    one, many = make(1), make(samples)
    program = replace(one.artifact.program, externals=many.artifact.program.externals, turns=samples)
    return openwork.Engine(Artifact(program))


@pytest.mark.parametrize("batch", [None, 1, 3, 8])
def test_a_batch_in_turns(library, tmp_path, batch):
    engine = in_turns(lambda n: compiled(artifacts.lively(artifacts.TwoOutputs(), 0.5), (n, 2, 8, 8)), 3)
    engine.save(tmp_path / "a.openwork")
    x = images(batch or 3)
    for ours, theirs in zip(Engine(library, tmp_path / "a.openwork").run(x, batch=batch), engine(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_tokens_are_checked_in_every_turn_before_the_first_runs(library, tmp_path):
    def make(n):
        ids = torch.zeros(n, 6, dtype=torch.int64)
        return openwork.compile(artifacts.Words().eval(), (ids, torch.ones_like(ids)), threads=1, tune="off")

    torch.manual_seed(0)
    engine = in_turns(make, 2)
    engine.save(tmp_path / "a.openwork")
    loaded = Engine(library, tmp_path / "a.openwork")
    ids = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 50]])
    found = np.full((2, 12), 7, np.float32)
    assert library.run(loaded.handle, pointers([ids, np.ones_like(ids)]), pointers([found]))
    assert "50" in str(library.failure()) and (found == 7).all()


@pytest.mark.parametrize("turns", [0, -1, 4, 1 << 40, 1.5, None])
def test_damaged_turns(library, path, tmp_path, turns):
    head, arrays = taken_apart(path.read_bytes())
    head["program"]["turns"] = turns
    (tmp_path / "a").write_bytes(put_together(json.dumps(head), arrays))
    with pytest.raises(Failure, match="damaged"):
        Engine(library, tmp_path / "a")


def test_an_input_may_be_an_output_in_its_own_type(library, words, tmp_path):
    engine, path = words
    head, arrays = taken_apart(path.read_bytes())
    program = head["program"]
    for dtype in ("int64", "int32", "int16", "int8", "uint8", "bool"):
        program["externals"][program["inputs"][1]]["dtype"] = dtype
        program["outputs"] = [*program["outputs"][:1], program["inputs"][1]]
        (tmp_path / dtype).write_bytes(put_together(json.dumps(head), arrays))
        ids, mask = np.arange(12).reshape(2, 6), np.array([[0, 1, 1, 0, 1, 0]] * 2, dtype)
        vectors, returned = Engine(library, tmp_path / dtype).run(ids, mask)
        np.testing.assert_array_equal(returned, mask)
        assert returned.dtype == dtype
        np.testing.assert_array_equal(vectors, engine(ids, mask.astype(np.int64)))


def test_truth_values_are_any_byte_but_zero(library, words, tmp_path):
    engine, path = words
    head, arrays = taken_apart(path.read_bytes())
    head["program"]["externals"][head["program"]["inputs"][1]]["dtype"] = "bool"
    (tmp_path / "bool").write_bytes(put_together(json.dumps(head), arrays))
    ids, mask = np.arange(12).reshape(2, 6), np.array([[0, 1, 2, 255, 128, 0]] * 2, np.uint8)
    found = Engine(library, tmp_path / "bool").run(ids, mask)[0]
    np.testing.assert_array_equal(found, engine(ids, (mask != 0).astype(np.int64)))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_whole_numbers_beyond_32_bits_are_named(library, words, value):
    ids = np.full((2, 6), value)
    with pytest.raises(Failure, match=rf"input \w+ holds {value}, which does not fit into 32 bits"):
        Engine(library, words[1]).run(ids, np.ones((2, 6), np.int64))


def test_a_file_may_be_replaced_while_it_is_in_use(library, engine, words, path, tmp_path):
    used = tmp_path / "used.openwork"
    used.write_bytes(path.read_bytes())
    loaded, wanted = Engine(library, used), engine(images())
    words[0].save(used)
    for ours, theirs in zip(loaded.run(images()), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_many_threads_on_one_engine_and_one_engine_each(library, engine, path):
    shared = Engine(library, path, 2)
    wanted = {seed: engine(images(seed)[:2]) for seed in range(2, 10)}

    def right(seed: int) -> bool:
        own = Engine(library, path, 1)
        x = images(seed)[:2]
        return all(
            np.array_equal(ours, theirs)
            for _ in range(30)
            for loaded in (own, shared)
            for ours, theirs in zip(loaded.run(x), wanted[seed], strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, wanted))


FORK = """
import os, sys
sys.path.insert(0, {folder!r})
import numpy as np
from library import Engine, Library
from pathlib import Path
engine = Engine(Library(Path({library!r})), Path({path!r}), 2)
x = np.ones((2, 2, 8, 8), np.float32)
wanted = engine.run(x)[0].tobytes()
child = os.fork()
if child == 0:
    os._exit(0 if engine.run(x)[0].tobytes() == wanted else 1)
assert os.waitpid(child, 0)[1] == 0
assert engine.run(x)[0].tobytes() == wanted
print("fine")
"""


def test_the_child_of_a_fork_goes_on(installed, path):
    where = {"folder": str(Path(__file__).parent), "library": str(installed / "lib" / "libopenwork.so")}
    assert called(sys.executable, "-c", FORK.format(**where, path=str(path)), timeout=60) == "fine\n"


# ---- what goes wrong ----


def test_null_pointers_and_wrong_numbers_are_told(library, path):
    loaded = Engine(library, path)
    handle, x = loaded.handle, images()
    outs = [np.zeros(shape, dtype) for _, shape, dtype in loaded.outputs()]
    shifted = np.zeros(x.nbytes + 4, np.uint8)[1:]
    assert library.load(None, 1) is None and library.error() == b"the path is a null pointer"
    assert library.load_memory(None, 5, 1) is None and library.error() == b"the content is a null pointer"
    for threads in (-1, 1025):
        assert library.load(str(path).encode(), threads) is None
        assert library.error().decode() == f"threads={threads} is not a whole number in 0..1024"
    assert library.input_count(None) == -1 and library.error() == b"the engine is a null pointer"
    assert library.output_count(None) == -1
    for index in (-1, 1, 2**31 - 1):
        assert not library.input(handle, index)
        assert library.error().decode() == f"there is no input {index}, the model has 1"
    assert not library.output(handle, 2) and not library.output(None, 0)
    for inputs, outputs, message in [
        (None, pointers(outs), b"inputs are a null pointer"),
        (pointers([x]), None, b"outputs are a null pointer"),
        (pointers([None]), pointers(outs), b"input x is a null pointer"),
        (pointers([x]), pointers([None, None]), f"output {loaded.outputs()[0][0]} is a null pointer".encode()),
        (pointers([shifted]), pointers(outs), b"input x is not aligned to 4 bytes"),
    ]:
        assert library.run(handle, inputs, outputs) == -1 and library.error() == message
        assert library.run_batch(handle, 3, inputs, outputs) == -1 and library.error() == message
    assert library.run(None, pointers([x]), pointers(outs)) == -1
    assert library.run_batch(handle, -1, pointers([x]), pointers(outs)) == -1
    assert library.error() == b"a batch of -1 is less than nothing"
    library.free(None)
    assert library.run(handle, pointers([x]), pointers(outs)) == 0  # none of this harmed the engine


def test_errors_belong_to_their_thread(library):
    def failing(number: int) -> bool:
        name = f"none{number}.openwork"
        return library.load(name.encode(), 1) is None and name in library.error().decode()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(failing, range(200)))


def test_long_errors_are_cut(library):
    assert library.load(b"x" * 2000, 1) is None
    assert 400 < len(library.error()) < 512


def test_a_model_without_a_common_batch_runs_as_compiled_only(library, path, tmp_path):
    head, arrays = taken_apart(path.read_bytes())
    out = head["program"]["externals"][head["program"]["outputs"][0]]
    out["shape"] = [int(np.prod(out["shape"])), 1]
    (tmp_path / "a").write_bytes(put_together(json.dumps(head), arrays))
    loaded = Engine(library, tmp_path / "a")
    loaded.run(images())
    with pytest.raises(Failure, match="share no batch axis: only the compiled shapes run"):
        loaded.run(images(3), batch=3)


def test_operators_of_pytorch_are_named(library, tmp_path):
    model = Calls(lambda own, x: own[0](x).cumsum(1).sort(1)[0], nn.Linear(4, 5)).eval()
    compiled(model, (1, 4)).save(tmp_path / "a.openwork")
    with pytest.raises(Failure, match=r"a.openwork runs .*aten\.cumsum.*, aten\.sort.* in PyTorch, so it runs from Py"):
        Engine(library, tmp_path / "a.openwork")


def damages(content: bytes) -> dict[str, tuple[bytes, str]]:
    """Files that are wrong, and what is said about them after their name."""
    head, arrays = taken_apart(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names = sorted((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])

    def program(change) -> bytes:
        changed = json.loads(json.dumps(head))
        change(changed["program"])
        return put_together(json.dumps(changed), arrays)

    def table(change) -> bytes:
        changed = json.loads(json.dumps(header))
        change(*(changed[name] for name in names[:2]))
        return with_header(content, changed)

    def taps(program):
        return next(s for s in program["steps"] if s["op"] == "taps")

    tensors = "safetensors of something else"
    return {
        "nothing": (b"", r" is not an Openwork artifact, or was cut off \(0 bytes\)"),
        "zeros": (bytes(4096), " is not an Openwork artifact, or was cut off"),
        "cut off": (content[:-100], " is damaged: its content does not match its digest; copy or compile it again"),
        "one bit": (content[:-1] + bytes([content[-1] ^ 1]), " is damaged: its content does not match its digest"),
        "huge header": ((2**63).to_bytes(8, "little") + content[8:], " is not an Openwork artifact, or was cut off"),
        tensors: (
            put_together("", {}).replace(b'"digest"', b'"digesd"'),
            " is not an Openwork artifact: it has no dig",
        ),
        "not JSON": (put_together("{", {}), r" is not an Openwork artifact: its header cannot be read \(not JSON\)"),
        "deep": (
            put_together("[" * 9999 + "]" * 9999, {}),
            r" .*its header cannot be read \(JSON is nested too deeply",
        ),
        "a list": (put_together("[]", {}), " is damaged: format is missing"),
        "version": (put_together('{"format":1}', {}), " has format 1, this Openwork reads format 2; compile the model"),
        "text as version": (put_together('{"format":"2"}', {}), " is damaged: format is not a whole number"),
        "no program": (put_together('{"format":2}', {}), " is damaged: program is missing"),
        "arena": (program(lambda p: p.update(arena=2**40)), " is damaged: the arena must hold"),
        "small arena": (program(lambda p: p.update(arena=8)), r" is damaged: step '.*' \(.*\): .*outside"),
        "size": (
            program(lambda p: p["externals"][0].update(shape=[0])),
            " is damaged: the sizes of buffer 'x' are out",
        ),
        "sizes": (program(lambda p: p["externals"][0].update(shape=[2**29, 2])), " .*'x' are out of range"),
        "axes": (program(lambda p: p["externals"][0].update(shape=[1] * 65)), " .*'x' has too many axes"),
        "type": (program(lambda p: p["externals"][0].update(dtype="x")), " is damaged: a buffer's type 'x' is unknown"),
        "no input": (program(lambda p: p.update(inputs=[])), " is damaged: it has no inputs"),
        "no output": (program(lambda p: p.update(outputs=[])), " is damaged: it has no outputs"),
        "twice": (program(lambda p: p.update(inputs=[0, 0])), " is damaged: an input is listed twice"),
        "buffer": (program(lambda p: p.update(outputs=[99])), " is damaged: buffer 99 is not one of 3"),
        "segment": (
            program(lambda p: p["segments"][0].update(end=99)),
            " is damaged: a segment's step 99 is not one of",
        ),
        "turned": (program(lambda p: p["segments"][0].update(begin=2, end=1)), " .*: a segment ends before it begins"),
        "step": (program(lambda p: p["steps"][0].update(op="jump")), r" .*\(jump\): unknown kind of step 'jump'"),
        "field": (program(lambda p: taps(p).update(mb=3)), r" is damaged: step '.*' \(taps\): rows in a block must be"),
        "array": (program(lambda p: taps(p)["arrays"].append("more")), r" .*\(taps\): array 'more' is missing"),
        "writes": (
            program(lambda p: [s["y"].update(buffer=0, planes=[[0, 0, 1]]) for s in p["steps"] if s["op"] == "copy"]),
            r" is damaged: step '.*' \(copy\): a step writes into an input",
        ),
        "overlap": (
            table(lambda a, b: b.update(data_offsets=a["data_offsets"])),
            " .*array '.*' leaves a hole, overlaps",
        ),
        "hole": (table(lambda a, b: a.update(data_offsets=[4, a["data_offsets"][1]])), " .*array '.*' leaves a hole"),
        "end": (
            table(lambda a, b: a.update(data_offsets=[0, 2**40])),
            " .*array '.*' leaves a hole, over.* is cut off",
        ),
        "negative": (table(lambda a, b: a.update(data_offsets=[-4, 4])), " .*array '.*' an offset is -4"),
        "bytes": (table(lambda a, b: a.update(shape=[1])), r" .*array '.*' has \d+ bytes, its shape and type need 4"),
        "overflow": (table(lambda a, b: a.update(shape=[2**62] * 3)), " .*array '.*' is larger than the file"),
        "unknown": (table(lambda a, b: a.update(dtype="F8")), " .*array '.*' has the unknown type 'F8'"),
        "offsets": (table(lambda a, b: a.update(data_offsets=[0])), " .*array '.*' needs two offsets"),
        "appended": (sealed(content + bytes(8)), " is damaged: 8 bytes after the last array belong to none"),
        "other type": (
            program_with(head, arrays, lambda a: {k: v.astype(np.float64) for k, v in a.items()}),
            r" .*\(.*\): an array's type is none of float32",
        ),
    }


def program_with(head, arrays, change) -> bytes:
    return put_together(json.dumps(head), change(arrays))


def test_what_is_wrong_with_a_file_is_named(library, path, tmp_path):
    for name, (content, message) in damages(path.read_bytes()).items():
        file = tmp_path / "file.openwork"
        file.write_bytes(content)
        for source, called_so in ((file, re.escape(str(file))), (content, "the artifact")):
            if not content and source is content:
                continue
            with pytest.raises(Failure) as caught:
                Engine(library, source)
            text = str(caught.value)
            assert re.match(called_so + message, text), f"{name}: {text}"
            assert "\n" not in text and len(text) < 500


def test_files_that_cannot_be_read_are_named(library, tmp_path):
    with pytest.raises(Failure, match=r"cannot read .*none: No such file or directory"):
        Engine(library, tmp_path / "none")
    with pytest.raises(Failure, match=r"cannot read .*: Is a directory"):
        Engine(library, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure, match=r"cannot read .*pipe: it is not a regular file"):
        Engine(library, tmp_path / "pipe")


def test_two_thousand_corruptions_are_all_found(library, path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = corrupted(content, rng)
        if damaged and damaged != content:
            with pytest.raises(Failure, match="the artifact"):
                Engine(library, damaged)


def test_both_ways_of_hashing_agree_with_hashlib(tmp_path):
    """With the CPU's own instructions, and without."""
    folder = build("library", "openwork_hash")
    data = np.random.default_rng(0).bytes(70_000)
    (tmp_path / "data").write_bytes(data)
    sizes = [*range(260), 4096, 65_535, 70_000]
    printed = called(folder / "openwork_hash", tmp_path / "data", *map(str, sizes)).split()
    assert printed == [hashlib.sha256(data[:size]).hexdigest() for size in sizes for _ in range(2)]
