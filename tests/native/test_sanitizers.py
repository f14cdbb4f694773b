"""The native library with checks compiled in: AddressSanitizer and UndefinedBehaviorSanitizer on what it reads and
computes, ThreadSanitizer on what openwork.h promises to threads, and hostile files under the first two.

`make test` runs the short forms, with portable kernels; `make sanitize` the whole, `make fuzz` as many files as wanted.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import artifacts
import pytest
from builds import FORMS, ROOT, build, called
from fuzz_loader import fuzz, has_libfuzzer
from suite import HERE, KERNELS, fuzzed, passed

INPUTS, SECONDS = 20_000, 60.0
"""Hostile files tried by `make test`, and when it stops whatever their number; a quarter of the minute is usual."""

STEP_KIND = re.compile(r'\b\w*kind\("(\w+)", make<')


@pytest.fixture(scope="module", autouse=True)
def _compiler_has_sanitizers(tmp_path_factory):
    program = tmp_path_factory.mktemp("probe") / "probe"
    for check in ("address,undefined", "thread"):
        command = [os.environ.get("CXX", "c++"), f"-fsanitize={check}", "-x", "c++", "-", "-o", program]
        if subprocess.run(command, input="int main() {}", text=True, capture_output=True).returncode:
            pytest.skip(f"the C++ compiler has no -fsanitize={check}")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return artifacts.write(tmp_path_factory.mktemp("artifacts"))


def models(files: list[Path]) -> list[Path]:
    return [path for path in files if not path.name.startswith("step-")]


def found(program: Path, mistake: str) -> str:
    """What a program says about a mistake that it is asked to make."""
    done = subprocess.run([program, mistake], capture_output=True, text=True)
    assert done.returncode != 0, f"{program} {mistake} went unnoticed"
    return done.stderr


# ---- hostile files ----


def hostile(form: str, folder: Path, cmake: Sequence[str] | None = None) -> None:
    """Hostile files by the fuzzer of a form. libFuzzer looks for new branches alone, most of which are refusals."""
    counts = fuzz(form, folder, INPUTS, SECONDS, cmake=cmake)
    assert counts["inputs"] > INPUTS // 4 and counts["slow"] == 0, counts
    loaded, ran = (300, 500) if has_libfuzzer(ROOT / "build" / f"native-{form}") else (20, 30)
    assert counts["loaded"] > counts["inputs"] // loaded and counts["ran"] > counts["inputs"] // ran, counts


def test_hostile_files_are_refused_or_run(tmp_path):
    hostile("fuzz-portable", tmp_path)


def test_a_read_beyond_an_end_would_be_found():
    assert "heap-buffer-overflow" in found(build("fuzz-portable", "openwork_fuzz") / "openwork_fuzz", "overflow")


@pytest.mark.slow
def test_libfuzzer_drives_the_fuzzer_where_the_compiler_has_it(tmp_path):
    clang = next(filter(None, map(shutil.which, ("clang++", *(f"clang++-{n}" for n in range(30, 13, -1))))), None)
    if clang is None:
        pytest.skip("needs clang with libFuzzer: apt install clang")
    hostile("libfuzzer-portable", tmp_path, [*FORMS["fuzz-portable"], f"-DCMAKE_CXX_COMPILER={clang}"])
    built = ROOT / "build" / "native-libfuzzer-portable"
    if not has_libfuzzer(built):
        pytest.skip(f"{clang} has no libFuzzer: apt install libclang-rt-dev")
    assert "heap-buffer-overflow" in found(built / "openwork_fuzz", "overflow")


def test_seeds_have_every_kind_of_step(files):
    kinds = {kind for path in (ROOT / "native" / "src").glob("*.cpp") for kind in STEP_KIND.findall(path.read_text())}
    assert {"taps", "dense", "rows", "recurrent", "attention", "unit", "mean"} <= kinds
    small = [path.read_text(errors="replace") for path in files if path.stat().st_size <= 64 << 10]
    assert kinds == {kind for kind in kinds if any(f'{{\\"op\\":\\"{kind}\\"' in text for text in small)}


# ---- threads ----


def stressed(form: str, seconds: float, files: list[Path]) -> list[list[int]]:
    """For each file how often threads with an engine each, threads that share one, and threads that load succeeded."""
    printed = called(build(form, "openwork_stress") / "openwork_stress", str(seconds), *files)
    return [[int(count) for count in line.split()] for line in printed.splitlines()]


def test_threads_have_an_engine_each_or_share_one(files):
    chosen = [path for path in files if path.stem in ("stream", "two_outputs", "words")]
    counts = stressed("tsan-portable", 0.3, chosen)
    assert len(counts) == 3 and all(count > 0 for line in counts for count in line), counts


def test_a_race_would_be_found():
    assert "data race" in found(build("tsan-portable", "openwork_stress") / "openwork_stress", "race")


# ---- the long forms ----


@pytest.mark.slow
def test_every_kernel_and_check_of_steps():
    assert passed([build("asan", "openwork_remote") / "openwork_remote"], *KERNELS) > 200


@pytest.mark.slow
def test_artifacts_and_engines_of_python():
    program = build("asan", "openwork_remote") / "openwork_remote"
    tests = [HERE.parent / path for path in ("formats", "engine/test_engine.py", "engine/test_not_finite.py")]
    assert passed([program], *map(str, tests)) > 100


@pytest.mark.slow
def test_random_steps():
    refused, ran = fuzzed([build("asan", "openwork_remote") / "openwork_remote"], 6000)
    assert refused > 3000 and ran > 300


@pytest.mark.slow
def test_the_functions_of_the_header():
    """The tests of the shared library; Python itself has no checks compiled in, so they are loaded before it.
    What Python runs is of the same build, because another level of optimisation rounds otherwise."""
    folder = build("asan", "openwork_remote", "openwork_hash", "install")
    compiler = os.environ.get("CXX", "c++")
    runtimes = [called(compiler, f"-print-file-name={name}").strip() for name in ("libasan.so", "libstdc++.so")]
    environment = {
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # of Python; those of the library are found below
        "OPENWORK_LIBRARY_FORM": "asan",
    }
    assert passed([folder / "openwork_remote"], f"{HERE}/test_c_library.py", **environment) > 40


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tsan", "asan"])
def test_threads_on_every_kind_of_step(form, files):
    """Under AddressSanitizer this is about engines that are loaded and freed all the time, and finds what leaks."""
    assert len(stressed(form, 5, models(files))) + len(stressed(form, 1, files)) == len(models(files)) + len(files)
