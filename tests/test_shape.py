"""The rules of docs/architecture.md, section 3, as tests: budgets, arrows, weight, documents."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luodi.core import catalog

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "luodi"
FILES = sorted(SOURCE.rglob("*.py"))
STEP_FAMILIES = catalog.SLOTS["steps"]
TOP = ("cli", "command", "starter", "adopt", "__main__")
HEAVY = ("torch", "pydantic", "rich")
EXTRAS = ("datasets", "sklearn", "onnx", "onnxruntime", "openvino", "nncf", "fastapi", "plotly", "transformers")

# family -> what of luodi it may import; a step family is added below
ARROWS: dict[str, tuple[str, ...]] = {
    "core": ("core",),
    "models": ("core.spec", "models"),
    "fields": ("core", "fields"),
    "tasks": ("core", "fields", "models", "tasks"),
    "serve": ("core", "serve"),
    "report": ("core", "report"),
    **{family: ("core", "models", "train.loop", family) for family in STEP_FAMILIES},
}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of everything imported anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name_of(path)}:{node.lineno}: relative import"
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def at_module_level(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of what importing a file imports: not in functions, not under TYPE_CHECKING."""
    waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, (node.module or "").partition(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            waiting += node.body


def test_files_keep_to_their_budget() -> None:
    steps = {entry.path for entry in catalog.entries("steps").values()}
    long = {
        name_of(path): lines
        for path in FILES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > (200 if path in steps else 300)
    }
    assert not long, f"split by noun: {long}"


def test_functions_keep_to_their_budget() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 50:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name} {lines}")
    assert not long, long


@pytest.mark.parametrize("family", sorted(ARROWS))
def test_imports_follow_the_arrows(family: str) -> None:
    allowed = tuple(f"luodi.{name}" for name in ARROWS[family])
    wrong = []
    for path in sorted((SOURCE / family).rglob("*.py")):
        for line, module in imports(path):
            head = module.partition(".")[0]
            if head == "luodi" and module not in ("luodi", "luodi.__version__"):
                inside = any(module == a or module.startswith(a + ".") or a.startswith(module + ".") for a in allowed)
                if not inside:
                    wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert not wrong, wrong


def test_nothing_imports_the_top() -> None:
    wrong = []
    for path in FILES:
        if name_of(path).split("/")[0].removesuffix(".py") not in TOP:
            wrong += [
                f"{name_of(path)}:{n} {m}" for n, m in imports(path) if m.startswith(tuple(f"luodi.{t}" for t in TOP))
            ]
    assert not wrong, wrong


def test_torch_and_extras_are_imported_in_calls() -> None:
    wrong = []
    for path in FILES:
        family = name_of(path).split("/")[0]
        for line, package in at_module_level(path):
            heavy = (package == "torch" and family != "models") or package in EXTRAS
            if heavy and not (family == "serve" and package == "fastapi"):  # serve is the extra itself
                wrong.append(f"{name_of(path)}:{line} {package}")
    assert not wrong, wrong


def test_a_runtime_opens_without_torch() -> None:
    for entry in catalog.entries("runtimes").values():
        tree = ast.parse(entry.path.read_text(encoding="utf-8"))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "open"]
        assert functions, entry.name
        assert "import torch" not in ast.unparse(functions[0]), entry.name


def modules_after(arguments: list[str]) -> set[str]:
    code = (
        "import sys\nimport luodi.cli\n"
        f"try: luodi.cli.main({arguments!r})\nexcept SystemExit: pass\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "steps"], ["show", "prune"], ["run", "--help"]])
def test_quick_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_after(arguments) & {*HEAVY, *EXTRAS}


@pytest.mark.parametrize("arguments", [["schema"], ["plan", "recipes/digits.yaml"]])
def test_plan_and_schema_import_no_extra(arguments: list[str]) -> None:
    assert not modules_after(arguments) & set(EXTRAS)


def test_importing_the_steps_imports_no_torch() -> None:
    modules = [
        entry.module
        for slot in ("steps", "tasks", "fields", "sources", "runtimes")
        for entry in catalog.entries(slot).values()
    ]
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("slot", sorted(catalog.SLOTS))
def test_every_entry_is_documented(slot: str) -> None:
    for entry in catalog.entries(slot).values():
        assert re.fullmatch(r"[A-Z].*\.", entry.summary), f"{slot} {entry.name}: {entry.summary!r}"


def test_everything_public_has_a_docstring() -> None:
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and ast.get_docstring(tree) is None:
            bare.append(name_of(path))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and ast.get_docstring(node) is None:
                bare.append(f"{name_of(path)} {node.name}")
    assert not bare, bare


def test_no_pickle_and_nothing_unfinished() -> None:
    found = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        found += [f"{name_of(path)} {word}" for word in ("TODO", "FIXME", "NotImplemented ") if word in text]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                unsafe = call == "torch.load" and "weights_only=True" not in ast.unparse(node)
                if (
                    unsafe
                    or call == "torch.save"
                    or re.fullmatch(r"(c?pickle|dill|joblib)\.(load|loads|dump|dumps)", call)
                ):
                    found.append(f"{name_of(path)}:{node.lineno} {call}")
    assert not found, found


def test_a_field_of_a_thing_needs_no_torch() -> None:
    slots = [slot for slot in catalog.SLOTS if slot not in ("panels",)]
    code = (
        f"import sys\nfrom luodi.core import catalog\n"
        f"for slot in {slots!r}:\n for name in catalog.entries(slot):\n  catalog.load(slot, name).model_json_schema()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documents_name_only_what_exists() -> None:
    known = {name for slot in catalog.SLOTS for name in (*catalog.entries(slot), *catalog.MOVED.get(slot, {}))}
    wrong = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.name}: luodi show {n}" for n in re.findall(r"luodi show ([a-z_]+)", text) if n not in known]
        for target in re.findall(r"\]\(((?!https?:|#)[^)\s#]+)", text):
            if not (path.parent / target).exists():
                wrong.append(f"{path.name}: no {target}")
    assert not wrong, wrong
