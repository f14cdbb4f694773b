"""One run of the whole way, shared by the tests of the commands that come after it."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from seat import DATA, MODEL, RECIPE, Done, run

from openwork.cli import main


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the user works in."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def compressed(home: Path) -> Done:
    done = run(
        *("compress", MODEL, "--recipe", RECIPE, "--data", DATA, "--run-dir", "runs/tiny", "--threads", 1),
        *("--against", "pytorch", "--repeats", 3, "--json"),
        cwd=home,
    )
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="session")
def artifact(home: Path, compressed: Done) -> Path:
    return home / compressed.document["artifact"]


@pytest.fixture
def mistake(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The one line that a mistake is answered with; the command's own way, without a process each time."""

    def line_of(*arguments: object, cwd: Path) -> str:
        monkeypatch.delenv("OPENWORK_DATA", raising=False)
        with contextlib.chdir(cwd):
            code = main.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert (code, out) == (main.MISTAKE, ""), err
        last = err.strip().splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in err, err
        return last.removeprefix("error: ")

    return line_of
