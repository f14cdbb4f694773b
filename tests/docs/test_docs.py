"""The documentation is current, complete, and what it tells people to type works."""

import doctest
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import openwork
from openwork import plugins
from openwork.cli import _reference
from openwork.cli.main import build_app, commands
from openwork.compiler.backend import backend

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<code>.*?)```", re.S)


def blocks(page: Path, language: str) -> list[str]:
    """Code of one language on a page; `<!-- not executed: reason -->` before a block leaves it out."""
    found = FENCE.finditer("\n" + page.read_text())
    return [m["code"] for m in found if m["language"] == language and "not executed: " not in m["before"]]


@pytest.fixture(autouse=True, scope="module")
def _backend_is_known() -> None:
    """As in an installed package, also where the source is used as it lies."""
    if "openwork" not in torch.compiler.list_backends():
        torch._dynamo.register_backend(backend, name="openwork")


@pytest.mark.parametrize("name", list(_reference.pages()))
def test_generated_pages_are_current(name: str) -> None:
    page = ROOT / "docs" / name
    assert page.is_file() and page.read_text() == _reference.pages()[name], f"docs/{name} is stale; run `make docs`"


def test_every_command_is_documented() -> None:
    text = _reference.cli_page()
    readme = (ROOT / "README.md").read_text()
    assert set(commands()) >= {"compress", "compile", "run", "bench", "explain", "report", "data", "doctor", "demo"}
    for name in commands():
        assert f"## openwork {name}\n" in text
        if name not in ("demo", "report"):
            assert f"openwork {name} " in readme or f"openwork {name}\n" in readme, f"README does not show {name}"


def test_every_public_name_is_documented() -> None:
    text = _reference.api_page()
    names = [n for n in dir(openwork) if not n.startswith("_")]
    names += [
        c.__name__
        for room in ("constraints", "solvers", "losses")
        for name in plugins.names(room)
        for _, c in inspect.getmembers(plugins.module(room, name), inspect.isclass)
        if c.__module__ == f"openwork.{room}.{name}" and not c.__name__.startswith("_") and hasattr(c, "kind")
    ]
    for name in names:
        assert f"## openwork.{name}\n" in text
        assert inspect.getdoc(getattr(openwork, name)), f"openwork.{name} has no docstring"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page one after the other, in one folder, with epochs cut to one: accuracy is not the point."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(re.sub(r"_epochs=\d+", "_epochs=1", code), f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=lambda p: p.name)
def test_recipes_on_a_page_are_valid(page: Path) -> None:
    for text in blocks(page, "yaml"):
        openwork.Recipe.parse(text)


def commands_on(page: Path) -> list[list[str]]:
    lines = [line for code in blocks(page, "bash") for line in code.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("openwork ")]


@pytest.mark.parametrize("page", [p for p in PAGES if commands_on(p)], ids=lambda p: p.name)
def test_commands_on_a_page_exist(page: Path) -> None:
    """Parsed by the program's own parser: a command, option or value that does not exist is an error."""
    group: Any = typer.main.get_command(build_app())
    for name, *arguments in commands_on(page):
        assert name in group.commands, name
        group.commands[name].make_context(name, list(arguments))


def test_a_wrong_command_on_a_page_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```bash\nopenwork run x.openwork --inptu x.npy\n```\n")
    with pytest.raises(Exception, match="inptu"):
        test_commands_on_a_page_exist(tmp_path / "page.md")


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("name", _reference.public_names())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value = getattr(openwork, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    home = inspect.getmodule(value)
    for test in doctest.DocTestFinder(recurse=False).find(value, name, globs=dict(vars(home)) if home else {}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
