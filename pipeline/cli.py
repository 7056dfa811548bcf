"""`recsys`: the command line. Heavy libraries load only in the commands that need them."""

from __future__ import annotations

import atexit
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from components.outcomes import ExitCode
from components.refusal import RefusedError
from configs import ConfigError
from pipeline.commands import (
    compare,
    data,
    deploy,
    doctor,
    explain,
    gc,
    graph,
    init,
    predict,
    release,
    run,
    runs,
    schema,
    tensorboard,
    train,
    tune,
    ui,
)
from pipeline.commands import compile as compile_


class _Commands(TyperGroup):
    """All commands. Click would tell of Ctrl-C as of any abort: without a word on the way on, and with exit code 1."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was called."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted: the same command again goes on where it was; finished steps are kept", file=sys.stderr)
            raise SystemExit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    name="recsys",
    cls=_Commands,
    help="Interaction logs in, a served, gated and reversible recommender out.\n\n"
    "Exit codes: " + "; ".join(f"{code} {code.means}" for code in ExitCode) + ".",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command("run-node")(run.run_node)
app.command()(graph.graph)
app.command()(gc.gc)
app.command()(runs.runs)
app.command()(runs.report)
app.command()(ui.ui)
app.command()(train.train)
app.command()(tensorboard.tensorboard)
app.command()(compare.compare)
app.command()(tune.tune)
app.command()(init.init)
app.command()(predict.predict)
app.command()(explain.explain)
app.command()(doctor.doctor)
app.add_typer(compile_.app, name="compile")
app.add_typer(schema.app, name="schema")
app.add_typer(data.app, name="data")
app.add_typer(release.app, name="release")
app.add_typer(deploy.app, name="deploy")


@app.callback()
def _recsys(debug: Annotated[bool, typer.Option("--debug", help="Show a stack trace when something breaks.")] = False):
    """Take `--debug`, which `main` has already seen wherever it stands."""


def main() -> None:
    """Run the command line and exit with its code."""
    code = recsys(sys.argv[1:])
    # Not sys.exit: messages of protobuf that outlive their module crash the interpreter as it ends, after all is done.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def recsys(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    given = [a for a in arguments if a != "--debug"]
    debug = len(given) < len(arguments)
    try:
        app(given)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE if end.code is None else ExitCode.BROKE
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        return _explain(error, debug)
    return 0


def exit_code(error: Exception) -> ExitCode:
    """Return what a command that ended in an error exits with."""
    if isinstance(error, ConfigError):
        return ExitCode.WRONG_CALL
    return ExitCode.REFUSED if isinstance(error, RefusedError) else ExitCode.BROKE


def _explain(error: Exception, debug: bool) -> int:
    """Print an error as its reader needs it and return the exit code."""
    code = exit_code(error)
    # Beam adds the step to a message, which says nothing to whoever must mend a file.
    message = re.sub(r"\s*\[while running '.*?'\]", "", str(error)).strip() or type(error).__name__
    if code == ExitCode.BROKE and not debug:
        message += "\n(`recsys --debug` shows where; the run's log holds what the libraries said)"
    print(f"{'refused' if code == ExitCode.REFUSED else 'error'}: {message}", file=sys.stderr)
    return code
