"""Checks that imports follow the table of rooms in docs/architecture.md: `import_rules.py PACKAGE TABLE` prints
offences.

The table is the single source: the column 'may import' names the rooms that a room may import, apart from itself and
those that are open to all. Exit code 1 if there are offences.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

OPEN_TO_ALL = {"errors", "plugins", "config", "files"}


def allowed_imports(table: str) -> dict[str, set[str]]:
    """Room -> rooms that it may import, from the rows of the Markdown table."""
    rooms: dict[str, str] = {}
    rows: dict[str, int] = {}
    for number, line in enumerate(table.splitlines()):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            for name in re.findall(r"`(\w+)(?:\.py|/)`", cells[0]):
                rooms[name], rows[name] = cells[3], number
    allowed: dict[str, set[str]] = {}
    for name, may in rooms.items():
        words = set(re.findall(r"\w+", may))
        # `errors.py` and `plugins.py` stand in one row: rooms of a row may know each other.
        row = {other for other in rooms if rows[other] == rows[name]}
        if "everything" in words:
            above = list(rooms)[: list(rooms).index(name)] if "above" in words else list(rooms)
            allowed[name] = set(above) - set(re.findall(r"\w+", may.partition(" but ")[2])) | row
        elif "nothing" in words:
            allowed[name] = row
        else:
            allowed[name] = words & rooms.keys() | OPEN_TO_ALL | row
    return allowed


def offences(package: Path, table: str) -> Iterator[str]:
    """One line for each import of a room that the table does not allow, and for each room that it does not list."""
    allowed = allowed_imports(table)
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        room = parts[0]
        if parts == ("__init__",):
            continue
        if room not in allowed:
            yield f"{path}: room {room!r} is not in the table"
            continue
        for line, target in sorted(set(imported_rooms(path, package))):
            if target not in allowed[room]:
                yield f"{path}:{line}: {room} may not import {target}"


def imported_rooms(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import from the package, lazy ones inside functions included."""
    home = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1 and _is_room(package, parts[1]):
                yield node.lineno, parts[1]


def _is_room(package: Path, name: str) -> bool:
    return (package / name).is_dir() or (package / f"{name}.py").is_file()


if __name__ == "__main__":
    found = list(offences(Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")))
    print("\n".join(found))
    sys.exit(bool(found))
