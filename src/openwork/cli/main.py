"""The `openwork` command: finds the commands in this folder, runs one, and turns mistakes into one line.

A command is a file of this folder with a function `command`; its name is the file's name. One that goes on where it was
interrupted sets `GOES_ON`. Commands parse, call the public API and `show` one result. Nothing here imports torch:
`openwork run x.openwork --input x.npy` and `openwork --help` stay quick and work where torch is not installed.
"""

import contextlib
import shlex
import sys
import warnings
from typing import Annotated

import typer

from .. import __version__, plugins
from ..errors import OpenworkError, OpenworkNotice
from . import _output

MISTAKE = 2
"""Exit code after a mistake of the user's, as argument parsers use."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use (128 + SIGINT)."""


def commands() -> tuple[str, ...]:
    """Names of all commands: the files of this folder."""
    return tuple(name for name in plugins.names("cli") if name != "main")


def _version(wanted: bool) -> None:
    if wanted:
        _output.show({}, f"openwork {__version__}", as_json=False)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prune a trained PyTorch model into a shape that CPUs run fast, compile it and run it."""


def build_app() -> typer.Typer:
    """The typer application with every command of this folder."""
    app = typer.Typer(
        name="openwork",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in commands():
        app.command(name)(plugins.module("cli", name).command)
    return app


def run(argv: list[str]) -> int:
    """Run `argv` (without the program's name) and return the exit code; never raises for a user's mistake."""
    argv = argv or ["--help"]
    as_json = "--json" in argv
    # Help is a result, and typer writes it itself.
    apart = contextlib.nullcontext() if {"--help", "-h"} & set(argv) else _output.results_apart()
    with apart, warnings.catch_warnings():
        if not sys.warnoptions:
            # Deprecations inside torch's exporter are nothing that the user could mend.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", OpenworkNotice)
        warnings.showwarning = _output.notice
        try:
            returned = build_app()(argv, prog_name="openwork", standalone_mode=False)
        except OpenworkError as error:
            return _output.fail(str(error), as_json, MISTAKE)
        except (KeyboardInterrupt, typer.Abort):
            returned = INTERRUPTED
        except BrokenPipeError:
            # The reader (`| head`) went away: nothing is left to say, and nobody to say it to.
            return 0
        except Exception as error:
            # Usage errors of typer's parser; its classes have moved between releases, the method has not.
            if not hasattr(error, "format_message"):
                raise
            return _output.fail(error.format_message(), as_json, MISTAKE)
        if returned == INTERRUPTED:
            # Either of the above, or typer itself caught Ctrl-C and made it this number.
            return _output.fail(_interrupted(argv), as_json, INTERRUPTED)
        return returned if isinstance(returned, int) else 0


def _interrupted(argv: list[str]) -> str:
    """What is left after Ctrl-C, and what to do. Files are written whole at a command's end, but where it goes on."""
    goes_on = argv[0] in commands() and getattr(plugins.module("cli", argv[0]), "GOES_ON", False)
    left = "what was finished is kept; go on with" if goes_on else "nothing was written; start again with"
    return f"interrupted, {left}: {shlex.join(['openwork', *argv])}"


def main() -> None:
    """Entry point of the `openwork` script."""
    code = run(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
