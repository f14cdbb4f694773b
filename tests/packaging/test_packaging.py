"""What a fresh machine relies on: pins, reasons, messages about a missing compiler, what a wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALL_HINTS = ("apt install g++", "xcode-select --install", "found none")


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(separator for _, separator, _ in found), "every line pins one version"
    return {canonicalize_name(name): version for name, _, version in found}


def requirements():
    project = PROJECT["project"]
    lists = [project["dependencies"], PROJECT["build-system"]["requires"], *project["optional-dependencies"].values()]
    found = [Requirement(text) for group in lists for text in group]
    return {canonicalize_name(r.name): r for r in found if r.name != "openwork"}


def test_every_dependency_is_pinned_within_its_range():
    for name, requirement in requirements().items():
        assert name in pins(), f"constraints.txt pins no {name}"
        assert requirement.specifier.contains(pins()[name]), (
            f"{name}=={pins()[name]} is outside {requirement.specifier}"
        )


def test_what_the_dependencies_pull_in_is_pinned_too():
    seen, todo = set(), list(requirements())
    while todo:
        name = todo.pop()
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted = [r for r in map(Requirement, needs) if r.marker is None or r.marker.evaluate({"extra": ""})]
        fresh = {canonicalize_name(r.name) for r in wanted} - seen
        seen |= fresh
        todo += fresh
    # A CUDA build of torch pins its own nvidia libraries exactly.
    loose = {n for n in seen - pins().keys() if not n.startswith(("nvidia-", "cuda-", "triton"))}
    assert not loose


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs/decisions/0001-dependencies.md").read_text()
    reasons = {
        canonicalize_name(name) for line in text.splitlines() if line.startswith("| ") for name in first_cell(line)
    }
    assert requirements().keys() <= reasons, requirements().keys() - reasons


def first_cell(line):
    return [name.strip() for name in line.split("|")[1].split(",")]


def test_the_version_is_said_once():
    import openwork

    assert PROJECT["project"]["version"] == openwork.__version__
    assert f"## {openwork.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def path_without_compilers(tmp_path):
    """A PATH with the few tools that make and CMake need, and no compiler."""
    tools = tmp_path / "bin"
    tools.mkdir()
    # CMake and Ninja may be those of the virtual environment.
    where = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    for name in ("bash", "sh", "make", "uname", "find", "cmake", "ninja", "awk"):
        if found := shutil.which(name, path=where):
            (tools / name).symlink_to(found)
    return str(tools)


def without_compiler(command, tmp_path):
    path = path_without_compilers(tmp_path)
    if not (Path(path) / command[0]).exists():
        pytest.skip(f"{command[0]} is not on PATH")
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=ROOT, env={**environment, "PATH": path}, capture_output=True, text=True)


def test_make_says_which_compiler_to_install_before_anything_is_made(tmp_path):
    found = without_compiler(["make", "demo", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"], tmp_path)
    assert found.returncode != 0
    assert all(hint in found.stderr for hint in INSTALL_HINTS), found.stderr
    assert not (tmp_path / "venv").exists()


def test_cmake_says_which_compiler_to_install(tmp_path):
    found = without_compiler(["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), "-G", "Ninja"], tmp_path)
    assert found.returncode != 0
    assert all(hint in found.stderr for hint in INSTALL_HINTS), found.stderr


def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    if shutil.which("make") is None or shutil.which("c++") is None:
        pytest.skip("needs make and a compiler")
    command = ["make", f"{tmp_path}/venv/.venv", f"VENV={tmp_path}/venv", f"PYTHON={old}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode != 0 and "needs Python 3.11 or later" in found.stderr


def test_no_flag_ties_the_library_to_the_machine_that_built_it():
    scripts = [ROOT / "CMakeLists.txt", *ROOT.glob("native/**/CMakeLists.txt")]
    text = re.sub(r"#.*", "", "\n".join(script.read_text() for script in scripts))
    assert "march=native" not in text and "mtune=native" not in text
    assert "-ffast-math" not in text and "-Ofast" not in text, "NaN and infinity must stay what they are"


@pytest.mark.parametrize("script", [".ci/run"])
def test_shell_scripts_parse(script):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    assert subprocess.run([bash, "-n", ROOT / script]).returncode == 0
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.slow
def test_a_wheel_holds_the_library_and_every_file_that_is_not_python(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-q", "-w", tmp_path, ROOT]
    build = tmp_path / "build"
    found = subprocess.run([*command, f"-Cbuild-dir={build}"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    (wheel,) = tmp_path.glob("openwork-*.whl")
    content = zipfile.ZipFile(wheel)
    names = set(content.namelist())
    (points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert "[torch_dynamo_backends]\nopenwork = openwork.compiler.backend:backend" in content.read(points).decode()
    source = ROOT / "src"
    wanted = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    wanted = {name for name in wanted if not name.endswith(".so")}
    assert wanted <= names, wanted - names
    assert any(re.fullmatch(r"openwork/engine/_native\..*\.so", name) for name in names)
