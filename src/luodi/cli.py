"""The command line: few verbs, no option for any single technique."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import join
from typing import NoReturn

from luodi.core.errors import LuodiError

ABOUT = "Takes a large model from the lab to production: a bundle goes through steps, and every step is measured."


class Parser(argparse.ArgumentParser):
    """A parser whose errors give the nearest name and the next command; exit code 2."""

    def error(self, message: str) -> NoReturn:
        typed = next((word for word in sys.argv[1:] if f"'{word.partition('=')[0]}'" in message or word in message), "")
        known = [*VERBS] if "verb" in message else self.options(sys.argv[1:2])
        close = get_close_matches(typed.partition("=")[0], known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        self.exit(2, f"luodi: {message}{hint}\nsee: {self.prog} --help\n")

    def options(self, verb: Sequence[str]) -> list[str]:
        """Every option of this parser, and of the verb that was typed."""
        found = [option for action in self._actions for option in action.option_strings]
        for action in self._actions:
            if isinstance(action.choices, dict) and verb and verb[0] in action.choices:
                found += action.choices[verb[0]].options([])
        return found


def cache_folder() -> Path:
    """Where samples are kept: $LUODI_CACHE, else ~/.cache/luodi."""
    return Path(os.environ.get("LUODI_CACHE") or Path.home() / ".cache" / "luodi")


def run(args: argparse.Namespace) -> int:
    """Run a recipe: every step is kept, measured, and not done twice."""
    from luodi.command.running import run_recipe

    return run_recipe(args.recipe, args.set, args.out, cache_folder(), tuple(args.trust),
                      rehearse=args.rehearse, strict=args.strict, json=args.json)  # fmt: skip


def land(args: argparse.Namespace) -> int:
    """Find the steps and the runtime that bring a bundle within limits on time, size, memory and quality."""
    from luodi.command.landing import land_bundle

    return land_bundle(args.bundle, args.limits, args.seconds, args.set, args.out, cache_folder(), tuple(args.trust),
                       json=args.json)  # fmt: skip


def plan(args: argparse.Namespace) -> int:
    """Say order, conflicts, missing extras, time and memory of a recipe; touches nothing."""
    from luodi.command.planning import plan_recipe

    return plan_recipe(args.recipe, args.set, args.out, cache_folder(), tuple(args.trust), json=args.json)


def init(args: argparse.Namespace) -> int:
    """Read the columns of a table and write a commented recipe for it."""
    from luodi.starter import write_recipe

    print(write_recipe(args.data, args.target, args.out))
    return 0


def predict(args: argparse.Namespace) -> int:
    """Answer files, folders, texts, JSON Lines or standard input; one line an answer."""
    from luodi.command.predicting import predict_inputs

    return predict_inputs(args.bundle, args.inputs, args.text, args.form, tuple(args.trust), args.threads)


def doctor(args: argparse.Namespace) -> int:
    """Say what holds a recipe's training back, what to change, and what that gave when it was tried."""
    from luodi.command.doctoring import doctor_recipe

    return doctor_recipe(args.recipe, args.set, cache_folder(), tuple(args.trust), args.seconds, json=args.json)


def serve(args: argparse.Namespace) -> int:
    """Serve a bundle over HTTP, with a page to try it; ready only after its golden requests were replayed."""
    from luodi.serve.app import serve as serve_bundle

    serve_bundle(args.bundle, args.host, args.port, args.form, args.threads, tuple(args.trust))
    return 0


def watch(args: argparse.Namespace) -> int:
    """Show runs live in the browser: curves, steps, layers, log; several runs in one chart."""
    from luodi.command.watching import watch_runs

    return watch_runs(args.runs, args.port, wait=args.wait)


def report(args: argparse.Namespace) -> int:
    """Write a run's report.html and report.json again."""
    from luodi.report.page import build

    print(build(args.folder))
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compare two bundles or runs, measure by measure, and what flipped."""
    from luodi.report.compare import compare as compare_bundles

    print(compare_bundles(args.first, args.second, json=args.json))
    return 0


def import_(args: argparse.Namespace) -> int:
    """Make a bundle of a model made elsewhere; its answers are proven against the original."""
    from luodi.command.importing import import_source

    print(import_source(args.source, args.out, args.weights, args.task, args.arguments, json=args.json))
    return 0


def list_(args: argparse.Namespace) -> int:
    """List what there is: slots and their entries, recipes, runs."""
    from luodi.command.listing import listed

    print(listed(args.what, args.out, json=args.json))
    return 0


def show(args: argparse.Namespace) -> int:
    """Show what a named thing does, and its fields."""
    from luodi.command.listing import shown

    print(shown(args.name, json=args.json))
    return 0


def schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema of recipes, so that editors complete them."""
    from json import dumps

    from luodi.command.schema import recipe_schema

    print(dumps(recipe_schema(), indent=1, ensure_ascii=False))
    return 0


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run, "plan": plan, "land": land, "doctor": doctor, "init": init, "predict": predict, "serve": serve,
    "watch": watch, "report": report, "compare": compare, "import": import_, "list": list_, "show": show,
    "schema": schema,
}  # fmt: skip


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(prog="luodi", description=ABOUT, allow_abbrev=False)
    whole.add_argument("--version", action="store_true", help="print the version")
    verbs = whole.add_subparsers(dest="verb", metavar="verb", parser_class=Parser, title="verbs")
    made: dict[str, Parser] = {}
    for name, function in VERBS.items():
        made[name] = verbs.add_parser(name, help=function.__doc__, description=function.__doc__, allow_abbrev=False)
    _recipe_verbs(made)
    _bundle_verbs(made)
    for name in ("run", "plan", "land", "doctor", "compare", "import", "list", "show"):
        made[name].add_argument("--json", action="store_true", help="print JSON for machines")
    for name in ("run", "plan", "land", "doctor", "predict", "serve"):
        made[name].add_argument("--trust", action="append", default=[], metavar="./FILE.py:NAME",
                                help="import path that a bundle may run; repeatable")  # fmt: skip
    return whole


def _recipe_verbs(made: dict[str, Parser]) -> None:
    for name in ("run", "plan", "doctor"):
        made[name].add_argument("recipe", type=Path, help="a recipe file (YAML)")
    for name in ("run", "plan", "land", "doctor"):
        made[name].add_argument("--set", action="append", default=[], metavar="PATH=VALUE",
                                help="change a field: steps.train.epochs=5; repeatable")  # fmt: skip
    for name in ("run", "plan", "land", "list"):
        made[name].add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs")
    made["run"].add_argument("--rehearse", action="store_true", help="everything on 64 rows and a few updates")
    made["run"].add_argument("--strict", action="store_true", help="an undecided limit counts as missed")
    made["doctor"].add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    made["init"].add_argument("data", type=Path, help="a table (CSV, Parquet, JSON Lines), or images in class folders")
    made["init"].add_argument("--target", default="", help="the column to learn")
    made["init"].add_argument("--out", type=Path, default=Path("recipe.yaml"), help="the recipe to write")
    made["list"].add_argument("what", nargs="?", default="", help="steps, tasks, models...; recipes; runs")
    made["show"].add_argument("name", help="a step, task, field, model...")


def _bundle_verbs(made: dict[str, Parser]) -> None:
    for name in ("predict", "serve", "land"):
        made[name].add_argument("bundle", type=Path, help="a bundle, or a run's folder")
    made["land"].add_argument("--limits", required=True, metavar="NAME=NUMBER,...",
                              help="p50_ms=5,size_mb=1,memory_mb=50,drop.accuracy=0.01")  # fmt: skip
    made["land"].add_argument("--seconds", type=float, default=300.0, help="for trying chains of steps")
    for name in ("predict", "serve"):
        made[name].add_argument("--form", default="serving", help="the form that answers; default: the one it serves")
        made[name].add_argument("--threads", type=int, default=1, help="threads of one forward")
    made["predict"].add_argument("inputs", nargs="*", help="files, folders, or - for JSON Lines on standard input")
    made["predict"].add_argument("--text", action="append", default=[], help="a text, as it is; repeatable")
    made["serve"].add_argument("--host", default="127.0.0.1", help="address to listen on")
    made["serve"].add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    made["watch"].add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder: runs/NAME")
    made["watch"].add_argument("--port", type=int, default=8001, help="port; 0 takes a free one")
    made["watch"].add_argument("--wait", action="store_true", help="a run may start later")
    made["report"].add_argument("folder", type=Path, help="a run's folder")
    made["compare"].add_argument("first", type=Path, help="a bundle, or a run's folder")
    made["compare"].add_argument("second", type=Path, help="a bundle, or a run's folder")
    add = made["import"].add_argument
    add("source", help="a transformers folder or hub name, or a PyTorch class: ./file.py:Class")
    add("--out", type=Path, required=True, help="the bundle to write")
    add("--weights", type=Path, help="of a PyTorch class: its state dict")
    add("--task", type=Path, help="of a PyTorch class: its task (YAML), with all blanks filled")
    add("--arguments", default="{}", help="of a PyTorch class: its arguments as JSON")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; a user's mistake is told without a traceback."""
    whole = parser()
    args = whole.parse_args(argv)
    try:
        if args.version:
            from luodi import __version__

            print(f"luodi {__version__}")
            sys.exit(0)
        if args.verb is None:
            whole.print_help()
            sys.exit(2)
        code = VERBS[args.verb](args)
        sys.stdout.flush()
        sys.exit(code)
    except LuodiError as error:
        print(f"luodi: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here:", join(["luodi", *sys.argv[1:]]), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the pipe had enough
        sys.exit(1)
