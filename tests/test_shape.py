"""The shape of the source: budgets, import arrows, import weight, docstrings, and docs that name what exists."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from luodi.core import catalog, yaml
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe

HOME = Path(__file__).parents[1]
SOURCE = HOME / "src" / "luodi"
FILES = sorted(SOURCE.rglob("*.py"))
STEP_FOLDERS = catalog.SLOTS["steps"]
STEP_FILES = sorted(entry.path for entry in catalog.entries("steps").values())
DOCS = sorted([*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")])


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def every_file(test):
    return pytest.mark.parametrize("path", FILES, ids=name)(test)


# ---- budgets, counted on the formatted source -----------------------------------------------------------------------


def test_the_source_is_formatted_and_clean():
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, str(SOURCE)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@every_file
def test_files_are_small(path):
    most = 200 if path in STEP_FILES else 300
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= most, f"{name(path)} has {lines} lines, {most} are allowed: split it by noun"


@every_file
def test_functions_are_small(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{name(path)}:{node.lineno} {node.name} has {lines} lines"


def test_medians_are_far_below():
    from statistics import median

    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES if path.stat().st_size]
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert median(lines) <= 120 and median(functions) <= 12, (median(lines), median(functions))


# ---- import arrows --------------------------------------------------------------------------------------------------

# Who may import which part of luodi; a part is the first folder or file below luodi. Missing: may import anything.
CORE = {"core"}
MAY: dict[str, set[str]] = {
    "core": CORE,
    "models": {"models"},  # and core.spec
    "fields": {*CORE, "fields"},
    "tasks": {*CORE, "fields", "models", "tasks"},
    "serve": {*CORE, "serve"},
    "report": {*CORE, "report"},
    "watch": {*CORE, "watch"},
    **{family: {*CORE, "models", "train", family} for family in STEP_FOLDERS},
}
# At the top: they may import anything, and nobody imports them.
TOP = ("command", "cli", "starter", "adopt", "doctor", "__main__")
# Who is the exception, and why.
EXCEPT = {
    ("__main__", "cli"), ("cli", "command"), ("cli", "starter"), ("command", "adopt"), ("command", "starter"),
    ("command", "doctor"),
    ("command/demo.py", "cli"),  # a command line of its own, as __main__ is
}  # fmt: skip


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, also inside functions; not what only a type checker reads."""
    hidden = {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for branch in node.body
        for inner in ast.walk(branch)
    }
    for node in ast.walk(tree(path)):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}:{node.lineno}: relative import"
            yield str(node.module), node.lineno
            if node.module == "luodi":
                yield from ((f"luodi.{alias.name}", node.lineno) for alias in node.names)


def part(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@every_file
def test_arrows(path):
    mine = part(path)
    for module, line in imports(path):
        head, *rest = module.split(".")
        if head != "luodi" or not rest or rest[0] in ("__version__", "__init__"):
            continue
        where, theirs = f"{name(path)}:{line} imports {module}", rest[0]
        if theirs in TOP and theirs != mine:
            assert {(mine, theirs), (name(path), theirs)} & EXCEPT, f"{where}: nothing imports {theirs}"
        if mine in MAY:
            if mine == "models" and module in ("luodi.core.spec", "luodi.core"):
                continue
            assert theirs in MAY[mine], f"{where}: {mine} may import {', '.join(sorted(MAY[mine]))}"
        if mine in STEP_FOLDERS and mine != "train" and theirs == "train":
            assert rest[1] == "loop", f"{where}: of train, only its loop"
        if theirs in STEP_FOLDERS and theirs != mine and mine in STEP_FOLDERS:
            assert theirs == "train", f"{where}: families of steps do not import each other"


def test_an_arrow_that_points_the_wrong_way_is_seen(tmp_path, monkeypatch):
    """The test above can fail: planted imports, also inside a function."""
    planted = {
        "core/x.py": "def f():\n    from luodi.compress.prune import Prune",
        "fields/x.py": "import luodi.tasks.supervised",
        "compress/x.py": "from luodi.export.export import Export",
        "export/x.py": "from luodi.train.train import Train",
        "serve/x.py": "from luodi import report",
        "report/x.py": "from luodi.cli import main",
        "models/x.py": "from luodi.core.thing import Thing",
    }
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    for where, text in planted.items():
        path = tmp_path / where
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        with pytest.raises(AssertionError):
            test_arrows(path)


# ---- what stays out of the way --------------------------------------------------------------------------------------

LIGHT = {"torch", "pydantic", "rich", "numpy", "pyarrow", "PIL"}
EXTRAS = {
    "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "torchao", "datasets", "sklearn", "pandas", "plotly",
    "fastapi", "uvicorn", "starlette", "transformers", "prometheus_client",
}  # fmt: skip

LOADED = """
import json, runpy, sys
sys.argv = ["luodi", *sys.argv[1:]]
try:
    from luodi.cli import main
    main()
except SystemExit as ended:
    code = ended.code
sys.stderr.write("\\nloaded " + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded(*words: str) -> set[str]:
    """The packages that a command of the command line imports, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, cwd=HOME)
    code, names = json.loads(done.stderr.rpartition("loaded ")[2])
    assert code in (0, None), done.stderr
    return set(names)


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",), ("list",), ("list", "steps"),
                                   ("list", "runs"), ("list", "recipes"), ("show", "prune"), ("show", "convnet")],
                         ids=" ".join)  # fmt: skip
def test_looking_imports_nothing_heavy(words):
    assert not loaded(*words) & (LIGHT | EXTRAS)


@pytest.mark.parametrize("words", [("plan", "recipes/digits.yaml"), ("schema",)], ids=" ".join)
def test_planning_imports_no_extra(words):
    assert not loaded(*words) & EXTRAS


MODULES = """
import importlib, json, sys
found, heavy_ones = {}, {"torch", "onnx", "onnxruntime", "openvino", "datasets", "plotly", "fastapi"}
for name in sys.argv[1:]:
    importlib.import_module(name)
    found[name] = sorted(heavy_ones & set(sys.modules))
    for heavy in found[name]:
        sys.modules.pop(heavy)
print(json.dumps({name: heavy for name, heavy in found.items() if heavy}))
"""


def test_importing_a_step_imports_no_torch():
    """Nor any part of the core, a field, a task, a source, a runtime, a schedule: only models/ are torch."""
    modules = [
        ".".join(("luodi", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if part(path) != "models" and path.name != "__main__.py"
    ]
    done = subprocess.run([sys.executable, "-c", MODULES, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_a_field_of_a_thing_needs_no_torch():
    """Every config of the catalog, models too, is made and described without torch."""
    script = (
        "import sys\nfrom luodi.core import catalog\n"
        "for slot in catalog.SLOTS:\n for name in catalog.entries(slot) if slot != 'panels' else ():\n"
        "  catalog.load(slot, name).model_json_schema()\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@every_file
def test_only_models_import_torch_at_the_top(path):
    top = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    heads = {one.partition(".")[0] for one in names}
    assert not heads & EXTRAS, heads & EXTRAS
    if part(path) != "models":
        assert "torch" not in heads


# ---- docstrings -----------------------------------------------------------------------------------------------------

ENTRIES = [entry for slot in catalog.SLOTS for entry in catalog.entries(slot).values()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.slot}.{entry.name}")
def test_every_entry_says_what_it_does(entry):
    first = entry.summary
    assert first.endswith(".") and 10 < len(first) <= 120, first
    assert catalog.load(entry.slot, entry.name).__name__ == entry.class_name if entry.slot != "panels" else True


@every_file
def test_everything_public_has_a_docstring(path):
    if not path.read_text(encoding="utf-8").strip():
        return
    assert ast.get_docstring(tree(path)), f"{name(path)} has no docstring"
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            told = ast.get_docstring(node) or ""
            assert told.split("\n")[0].strip(), f"{name(path)}:{node.lineno} {node.name} has no docstring"


@every_file
def test_every_file_starts_as_the_others(path):
    body = [
        node for node in tree(path).body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    if len(body) > 2:
        assert isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__", name(path)


# ---- what may not be in the source ----------------------------------------------------------------------------------


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@every_file
def test_no_pickle(path):
    heads = {module.partition(".")[0] for module, _ in imports(path)}
    assert not heads & {"cloudpickle", "dill", "joblib", "marshal", "shelve", "_pickle"}, heads
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError", f"{name(path)}:{node.lineno}: {ast.unparse(node)}"
        assert not (isinstance(node, ast.ImportFrom) and node.module == "pickle"), name(path)
    for called, node in calls(path):
        assert called not in ("torch.save", "np.save", "numpy.save", "pickle.loads"), f"{name(path)}:{node.lineno}"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load":
            assert given.get("weights_only") == "True", f"{name(path)}:{node.lineno}: torch.load runs code"
        if called in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", f"{name(path)}:{node.lineno}"


# Abstract nouns: what derives from them is final.
NOUNS = {*(f"core/{noun}.py" for noun in ("form", "field", "task", "step", "source")), "train/loop/slots.py"}


@every_file
def test_nothing_is_left_undone(path):
    text = path.read_text(encoding="utf-8")
    for word in ("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"):
        assert not re.search(rf"\b{word}\b", text), f"{name(path)} says {word}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(one, ast.Pass) for one in node.body)
            assert not silent, f"{name(path)}:{node.lineno} swallows {ast.unparse(node.type or ast.Name('all'))}"
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
            assert name(path) in NOUNS, f"{name(path)}:{node.lineno}: not built"


@every_file
def test_no_global_dice_and_no_environment(path):
    for called, node in calls(path):
        where = f"{name(path)}:{node.lineno} {called}"
        assert called not in ("torch.manual_seed", "random.seed", "np.random.seed", "numpy.random.seed"), where
        assert not re.match(
            r"(np|numpy)\.random\.(rand|randn|randint|choice|shuffle|permutation|normal|uniform)$", called
        )
        if called.startswith(("os.environ", "os.getenv")):
            assert part(path) == "cli", f"{where}: the environment is read in cli.py alone"


# ---- docs -----------------------------------------------------------------------------------------------------------


def blocks() -> list[tuple[str, str]]:
    """(file and line, text) of every YAML block of the docs."""
    found = []
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^```ya?ml[^\n]*\n(.*?)^```", text, re.M | re.S):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{path.relative_to(HOME)}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("where", "text"), blocks(), ids=[where for where, _ in blocks()])
def test_recipes_in_the_docs_can_be_read(where, text):
    """A whole recipe is checked as one; a piece of one as the keys that it has."""
    value = yaml.parse(text, where)
    if isinstance(value, list):
        value = {"steps": value}
    if not isinstance(value, dict) or not value.keys() <= {*Recipe.model_fields, "from"}:
        return
    whole = dict(value)
    whole.setdefault("name", "piece")
    if "from" not in whole:
        whole.setdefault("task", {"supervised": {"inputs": {"x": "number"}, "targets": {"y": "number"}}})
    try:
        Recipe.of(whole, text, where)
    except LuodiError as error:
        if "no file" not in str(error):  # a reader's own step
            raise


def test_the_readme_is_there_and_our_recipes_are_read():
    assert any(path.name == "README.md" for path in DOCS)
    for path in sorted((HOME / "recipes").glob("*.yaml")):
        assert Recipe.read(path).steps, path


def test_docs_name_only_what_exists():
    """What a page calls `luodi show X`, `luodi list X` or `luodi VERB`, and files it links to, are there."""
    from luodi.cli import VERBS

    every = {entry.name for entry in ENTRIES}
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(HOME)
        for verb, word in re.findall(r"\bluodi (show|list) ([a-z_]+)\b", text):
            known = every if verb == "show" else {*catalog.SLOTS, "runs", "recipes"}
            assert word in known, f"{where}: luodi {verb} {word}"
        for block in re.findall(r"^```(?:sh|bash|console|shell)[^\n]*\n(.*?)^```", text, re.M | re.S):
            for verb in re.findall(r"^\s*(?:\$ )?luodi ([a-z]+)", block, re.M):
                assert verb in VERBS, f"{where}: luodi {verb}"
            for recipe in re.findall(r"\brecipes/[\w./-]+\.yaml", block):
                assert (HOME / recipe).is_file(), f"{where}: {recipe}"
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (path.parent / link).exists(), f"{where}: {link}"
