"""The command line: one module per verb.

Exit codes: 0 fine; 1 anomalies were found and `--fail-on-anomaly` was given; 2 usage; 3 bad input; 4 what was asked for
was not reached: nothing is fast enough for `recommend`, a job of `bench` or `fit-all` failed; 5 memory ran out; 70 a
fault of `blemish` itself; 130 Ctrl-C ended it, 141 whoever read its output, 143 SIGTERM. Verbs import what they need
when they run, so that `blemish --help` loads neither torch nor lightning.
"""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

import typer

from blemish._version import __version__
from blemish.cli.console import (
    BAD_INPUT,
    CLOSED_PIPE,
    OUT_OF_MEMORY,
    UNFORESEEN,
    USAGE,
    complain,
    logging_on_stderr,
    talk,
)
from blemish.cli.verbs import Verbs
from blemish.errors import BlemishError, MissingExtraError, UsageError
from blemish.extras import needing_extras
from blemish.signing import required
from blemish.terminating import ended_by_sigterm

app = typer.Typer(
    name="blemish",
    cls=Verbs,
    help="Finds what is wrong in pictures after seeing only pictures that are right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _before_verbs(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Say only results, warnings and errors."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say also what is logged, and where errors come from."),
    require_signature: Path | None = typer.Option(
        None, "--require-signature", help="Open only models signed with this public key's private half.", metavar="KEY"
    ),
) -> None:
    talk.quiet, talk.verbose = quiet, verbose
    if verbose:
        context.with_resource(logging_on_stderr())
    if require_signature is not None:
        context.with_resource(required(require_signature))
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """The console script: deliberate errors become one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that its encoding lacks
    try:
        with ended_by_sigterm(and_ctrl_c=True), needing_extras():
            app()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer's own code for it is that of anomalies
            sys.exit(CLOSED_PIPE)
        raise
    except BlemishError as error:
        if talk.verbose:
            traceback.print_exc()
        complain(str(error))
        sys.exit(USAGE if isinstance(error, (UsageError, MissingExtraError)) else BAD_INPUT)
    except OSError as error:  # such as a name that is too long, or a full disk below stdout
        complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None))
        sys.exit(BAD_INPUT)
    except Exception as error:
        if not _ran_out_of_memory(error):
            traceback.print_exc()
            complain("this is a fault of blemish. Please report it with the lines above.")
            sys.exit(UNFORESEEN)
        reason = str(error).strip().partition("\n")[0] or "no more can be had"
        complain(
            f"memory ran out ({reason}). Take a smaller --batch-size, --image-size or --bank-size where there is one, "
            f"refuse large images with --max-pixels, or end other programs. Rows so far are kept; --resume goes on."
        )
        sys.exit(OUT_OF_MEMORY)


def _ran_out_of_memory(error: Exception) -> bool:
    """Each library below says it in its own words: NumPy by MemoryError, torch and runtimes by RuntimeErrors."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "Failed to allocate", "bad_alloc")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
