"""The page in a real browser."""

import shutil
import subprocess
from pathlib import Path

import pytest
from dom import Page

from openwork.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


def open_in_browser(page: Path, profile: Path) -> tuple[Page, list[str]]:
    """The DOM after loading and what the browser's console said."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_without_a_complaint_and_shows_its_figures(whole_run: Path, tmp_path: Path) -> None:
    page, console = open_in_browser(write_report(whole_run, output=tmp_path / "r.html"), tmp_path / "profile")
    assert console == []
    assert page.figures["Test accuracy"].endswith("90.71 % -1.02 points")
    assert page.figures["Speed-up"].startswith("Speed-up 3.00x")
    assert "onnxruntime" in page.sections["latency"]
    assert page.loads == []


def test_the_browser_would_complain_about_a_page_that_loads_something(whole_run: Path, tmp_path: Path) -> None:
    """The page's own policy forbids every request; this shows that the check above can fail."""
    path = write_report(whole_run, output=tmp_path / "r.html")
    path.write_text(path.read_text().replace("</footer>", '<img src="http://127.0.0.1:9/x.png"></footer>'))
    _, console = open_in_browser(path, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
