"""Imports go the way that docs/architecture.md draws, and what must run without torch does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKER = ROOT / "tests" / "import_rules.py"
TABLE = ROOT / "docs" / "architecture.md"


def check(package: Path, table: Path = TABLE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKER), str(package), str(table)]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_room_imports_only_what_its_line_names() -> None:
    done = check(ROOT / "src" / "openwork")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("statement", "offence"),
    [
        ("from ..training import shaper", "constraints may not import training"),
        ("from openwork.cli.main import main", "constraints may not import cli"),
        ("import openwork.solvers.admm as method", "constraints may not import solvers"),
        ("def f():\n    from .. import solvers", "constraints may not import solvers"),
        ("from ..data.base import Data", "constraints may not import data"),
    ],
)
def test_the_checker_sees_a_forbidden_import(statement: str, offence: str, tmp_path: Path) -> None:
    package = tmp_path / "openwork"
    for room in ("constraints", "solvers", "training", "cli", "data"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    (package / "errors.py").write_text("")
    good = package / "constraints" / "block.py"
    good.write_text("import math\nfrom ..errors import ShapeError\nfrom .base import Sparsity\n")
    assert check(package).returncode == 0
    good.write_text(statement + "\n")
    done = check(package)
    assert done.returncode == 1
    assert f"{good}:{1 + statement.count(chr(10))}: {offence}" in done.stdout


def test_the_checker_sees_a_room_that_nobody_wrote_down(tmp_path: Path) -> None:
    package = tmp_path / "openwork"
    (package / "surprise").mkdir(parents=True)
    (package / "surprise" / "__init__.py").write_text("")
    done = check(package)
    assert done.returncode == 1 and "room 'surprise' is not in the table" in done.stdout


WITHOUT_TORCH = """
import importlib, pkgutil, sys
sys.modules["torch"] = None  # any import of torch now raises
import openwork
dir(openwork), openwork.errors
for room in ROOMS:
    package = importlib.import_module(f"openwork.{room}")
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
"""


def without_torch(*rooms: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT_TORCH.replace("ROOMS", repr(rooms))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_formats_and_engine_never_import_torch() -> None:
    done = without_torch("formats", "engine")
    assert done.returncode == 0, done.stderr


def test_the_check_for_torch_can_fail() -> None:
    done = without_torch("constraints")
    assert done.returncode == 1 and "torch" in done.stderr
