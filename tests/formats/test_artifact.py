"""The artifact survives a round trip, finds every damage, and outlives a full disk."""

import dataclasses
import json
import mmap
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import BLANK, corrupted, put_together, sealed, taken_apart, with_header
from safetensors.numpy import save as safetensors
from small_models import assert_agrees

import openwork
from openwork.errors import ArtifactError, RunError
from openwork.formats import artifact

HERE = Path(__file__).parent


@pytest.fixture
def path(engine, tmp_path):
    engine.save(tmp_path / "a.openwork")
    return tmp_path / "a.openwork"


def test_round_trip(engine, model, path):
    loaded = openwork.load(path, threads=1)
    assert loaded.inputs == engine.inputs and loaded.outputs == engine.outputs
    assert loaded.provenance == engine.provenance
    assert loaded.provenance["note"] == 'a "quoted" ä\n' and loaded.provenance["accuracy"] == 0.9173
    assert loaded.nbytes == engine.nbytes == path.stat().st_size == engine.save(path)
    assert_agrees(loaded, model, (2, 2, 8, 8))
    for ours, theirs in zip(loaded(torch.ones(2, 2, 8, 8)), engine(torch.ones(2, 2, 8, 8)), strict=True):
        assert torch.equal(ours, theirs)


def test_the_file_is_plain_safetensors_with_the_programs_arrays(engine, path):
    head, arrays = taken_apart(path.read_bytes())
    assert head["format"] == artifact.VERSION
    steps = engine.artifact.program.steps
    assert {"taps", "rows", "pool", "copy", "mean", "binary"} == {s.op for s in steps}
    for i, step in enumerate(steps):
        for role, array in step.arrays.items():
            np.testing.assert_array_equal(arrays[f"{i}.{role}"], array)
            assert arrays[f"{i}.{role}"].dtype == array.dtype


def test_an_artifact_of_an_artifact_is_the_same(path):
    once = artifact.load(path)
    again = artifact.from_bytes(artifact.to_bytes(once))
    assert taken_apart(artifact.to_bytes(again))[0] == taken_apart(path.read_bytes())[0]


def test_arrays_are_used_where_they_lie_in_the_file(path):
    for step in artifact.load(path).program.steps:
        for array in step.arrays.values():
            while isinstance(array.base, np.ndarray):
                array = array.base
            assert isinstance(array.base.obj, mmap.mmap) and not array.flags.writeable


def test_a_file_may_be_replaced_while_it_is_in_use(engine, native_engine, path):
    x = torch.ones(2, 2, 8, 8)
    loaded, wanted = openwork.load(path, threads=1), engine(x)
    native_engine.save(path)
    assert all(map(torch.equal, loaded(x), wanted))


def test_files_of_several_pieces_are_digested_whole(native_engine, tmp_path):
    program = native_engine.artifact.program
    big = {"big": np.arange(5 << 18, dtype=np.float32)}  # 5 MiB
    content = artifact.to_bytes(artifact.Artifact(dataclasses.replace(program, constants=big)))
    assert content == sealed(content)
    np.testing.assert_array_equal(artifact.from_bytes(content).program.constants["big"], big["big"])
    for at in range(len(content) - 1, 0, -(1 << 20)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(ArtifactError, match="does not match its digest"):
            artifact.from_bytes(bytes(damaged))


def test_ten_thousand_corruptions_are_all_found(native_engine):
    content = artifact.to_bytes(native_engine.artifact)
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 10_000:
        damaged = corrupted(content, rng)
        if damaged == content:
            continue
        tried += 1
        with pytest.raises(ArtifactError):
            artifact.from_bytes(damaged)
    artifact.from_bytes(content)


def test_every_single_byte_of_the_header_counts(native_engine):
    content = bytearray(artifact.to_bytes(native_engine.artifact))
    for at in range(8 + int.from_bytes(content[:8], "little")):
        content[at] ^= 0x20
        with pytest.raises(ArtifactError):
            artifact.from_bytes(bytes(content))
        content[at] ^= 0x20


NOT_ARTIFACTS = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "zeros": bytes(4096),
    "text": b"import openwork\n" * 100,
    "pickle": pickle.dumps({"weights": [1.0] * 100}),
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
    "zip": b"PK\x03\x04" + bytes(100),
    "safetensors": safetensors({"a": np.ones(3)}),
    "safetensors with other metadata": safetensors({"a": np.ones(3)}, {"format": "pt"}),
    "a digest and no program": put_together("{}", {}),
    "a list as program": put_together("[]", {}),
    "not JSON": put_together("{", {}),
    "deep JSON": put_together("[" * 100_000 + "]" * 100_000, {}),
    "deep program": put_together(
        '{"format":2,"layers":[],"provenance":{},"program":' + '{"a":' * 900 + "1" + "}" * 901, {}
    ),
    "deep header": (200_000).to_bytes(8, "little") + b'{"digest":"' + BLANK + b'","a":' + b"[" * 200_000,
    "huge header size": (2**63).to_bytes(8, "little") + b"{" + bytes(100),
    "huge number": put_together('{"format":' + "9" * 5000 + "}", {}),
}


@pytest.mark.parametrize("kind", NOT_ARTIFACTS)
def test_what_is_not_an_artifact_is_refused(kind, tmp_path):
    path = tmp_path / "file.openwork"
    path.write_bytes(NOT_ARTIFACTS[kind])
    with pytest.raises(ArtifactError, match=r"file\.openwork (is not an Openwork artifact|is damaged)") as caught:
        openwork.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read .*none\.openwork: No such file"):
        openwork.load(tmp_path / "none.openwork")
    with pytest.raises(ArtifactError, match=r"cannot read .*: Is a directory"):
        openwork.load(tmp_path)


@pytest.mark.parametrize("version", [0, 1, 99, "2", None, [2]])
def test_another_version_is_named(path, version):
    head, arrays = taken_apart(path.read_bytes())
    head["format"] = version
    path.write_bytes(put_together(json.dumps(head), arrays))
    with pytest.raises(ArtifactError, match=r"has format .*, this Openwork reads format 2; compile the model again"):
        openwork.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(arena=8), "lies outside|reads outside|out of range"),
        (lambda p: p.update(arena=2**40), "sizes are damaged"),
        (lambda p: p["externals"][0].update(shape=[2, 2, 8, 2**20]), None),
        (lambda p: p["externals"][0].update(shape=[2, 2, 8, 7]), "lies outside"),
        (lambda p: p["externals"][0].update(shape=[0, 2, 8, 8]), "size is 0"),
        (lambda p: p["externals"][0].update(dtype="float64"), "type 'float64' is not one of float32, int64"),
        (lambda p: p["externals"][0].update(dtype=["int64"]), "is not one of"),
        (lambda p: p["inputs"].clear(), "no inputs or outputs"),
        (lambda p: p.update(outputs=[99]), "buffer 99 is not one of"),
        (lambda p: p["segments"][0].update(end=99), "steps are out of range"),
        (lambda p: p["steps"][0].update(op="jump"), r"step .* \(jump\) is damaged"),
        (lambda p: step(p, "taps").update(mb=0), r"\(taps\) is damaged: rows in a block"),
        (lambda p: step(p, "taps").update(columns=2**31 - 1), r"\(taps\) is damaged"),
        (lambda p: step(p, "taps").update(grid=[2**31, 1, 1, 1, 1]), "grid is out of range"),
        (lambda p: step(p, "taps").update(out=[[0, 0, 2**40]]), "out is out of range"),
        (lambda p: step(p, "rows").update(width=0), r"\(rows\) is damaged"),
        (lambda p: step(p, "pool").pop("kernel"), r"\(pool\) is damaged: kernel is missing"),
    ],
)
def test_lies_with_a_right_digest_are_named(path, change, message):
    head, arrays = taken_apart(path.read_bytes())
    change(head["program"])
    path.write_bytes(put_together(json.dumps(head), arrays))
    if message is None:
        openwork.load(path, threads=1)  # a larger buffer than is read is no danger
        return
    with pytest.raises(ArtifactError, match=message) as caught:
        openwork.load(path, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: b.update(data_offsets=a["data_offsets"]), "leaves a hole, overlaps another"),
        (lambda a, b: a.update(data_offsets=[4, a["data_offsets"][1]]), "leaves a hole"),
        (lambda a, b: b.update(data_offsets=[b["data_offsets"][0], 2**40]), "is cut off"),
        (lambda a, b: a.update(data_offsets=[-4, 4]), "an offset of array .* is -4"),
        (lambda a, b: a.update(data_offsets=[0.0, 4]), "an offset of array .* is 0.0"),
        (lambda a, b: a.update(data_offsets=[0]), "damaged"),
        (lambda a, b: a.update(shape=[2**62, 2**62]), "need another number"),
        (lambda a, b: a.update(shape=[-1]), "a size of array .* is -1"),
        (lambda a, b: a.update(dtype="F8_E4M3"), "unknown type 'F8_E4M3'"),
        (lambda a, b: a.update(dtype="I64"), "need another number"),
        (lambda a, b: a.pop("shape"), "damaged"),
        (lambda a, b: b.clear(), "damaged"),
    ],
)
def test_arrays_that_are_not_where_the_header_says_are_named(path, change, message):
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    first, second, *_ = sorted((v for k, v in header.items() if k != "__metadata__"), key=lambda v: v["data_offsets"])
    change(first, second)
    path.write_bytes(with_header(content, header))
    with pytest.raises(ArtifactError, match=message) as caught:
        openwork.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_bytes_after_the_last_array_are_refused(path):
    content = path.read_bytes() + bytes(8)
    path.write_bytes(sealed(content))
    with pytest.raises(ArtifactError, match="8 bytes after the last array belong to none"):
        openwork.load(path)


def step(program, op):
    return next(s for s in program["steps"] if s["op"] == op)


@pytest.mark.parametrize("which", ["engine", "native_engine"])
def test_hostile_files_never_crash(which, request, tmp_path):
    """In a process of its own, so that a crash is a failure of this test and not the end of all."""
    path = tmp_path / "a.openwork"
    request.getfixturevalue(which).save(path)
    script = [sys.executable, str(HERE / "fuzz_artifacts.py"), str(path), "0", "1500"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-3000:]}"
    refused, large, stopped, ran = map(int, done.stdout.split())
    assert refused > 500 and ran > 100 and large < 100 and stopped < 300, done.stdout


FULL_DISK = """
import resource, signal, sys
import numpy as np, openwork
engine = openwork.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    engine.save(sys.argv[1])
except openwork.errors.OpenworkError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_old_file(native_engine, tmp_path):
    path = tmp_path / "a.openwork"
    native_engine.save(path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"RunError cannot write {path}: File too large"), done.stdout + done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(native_engine, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(RunError, match=r"cannot write .*a.openwork: "):
        native_engine.save(tmp_path / "file" / "a.openwork")
    assert (tmp_path / "file").read_text() == "here"


NO_TORCH = """
import sys
import numpy as np, openwork
engine = openwork.load(sys.argv[1])
y = engine(np.ones((3, 1, 8, 8), np.float32))
engine.explain(repeats=1), engine.nbytes, engine.save(sys.argv[1])
assert type(y) is np.ndarray and y.shape == (3, 5)
print([name for name in sys.modules if name.partition(".")[0] in ("torch", "pydantic", "matplotlib", "sklearn")])
"""


def test_running_an_artifact_never_imports_torch(native_engine, tmp_path):
    path = tmp_path / "a.openwork"
    native_engine.save(path)
    done = subprocess.run([sys.executable, "-c", NO_TORCH, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_that_check_can_fail(tmp_path, engine):
    path = tmp_path / "a.openwork"
    engine.save(path)  # this one needs PyTorch for an operator
    script = "import sys, openwork; openwork.load(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
