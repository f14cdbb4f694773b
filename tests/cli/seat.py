"""The user's seat: the command in a process of its own, in a folder of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openwork

HERE = Path(__file__).parent
SOURCE = Path(openwork.__file__).parent.parent
MODEL, DATA, RECIPE = f"{HERE / 'mine.py'}:model", f"{HERE / 'mine.py'}:patterns", str(HERE / "recipe.yaml")


def environment(**changes: str) -> dict[str, str]:
    """One thread (tests share the machine), no data, no colours."""
    base = {k: v for k, v in os.environ.items() if k not in ("OPENWORK_DATA", "FORCE_COLOR")}
    path = os.pathsep.join(filter(None, (str(SOURCE), base.get("PYTHONPATH", ""))))
    return base | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"} | changes


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "openwork.cli.main", *map(str, arguments)]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything else there is an error."""
        return json.loads(self.out)


def run(*arguments: object, cwd: Path, **changes: str) -> Done:
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=240
    )
    return Done(done.returncode, done.stdout, done.stderr)
