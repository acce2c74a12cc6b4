"""Every block of the documentation is run, rehearsed: commands, recipes, Python. One test a page; state carries over
within a page. What the pages show as output is compared with what comes, numbers aside."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from reader import BLOCK, Block, Session, blocks

from luodi.cli import VERBS
from luodi.core import catalog, yaml
from luodi.core.device import cores
from luodi.core.recipe import Recipe

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "digits.yaml"
COOKBOOK = ROOT / "docs" / "cookbook"
INDEX = COOKBOOK / "README.md"
DELIVERED = (
    "M1 M2 M3 M4 M6 M7 M8 M9 M10 M11 M12 M14 M23 "
    "S1 S2 S4 S6 S8 D1 D2 D3 D4 D5 D6 D7 D11 E1 E2 E4 T5 T6 T7 T8 T9 T10 T12 T16 T17 T18 C1 C2 C3 C5 C7 P5"
).split()
PAGES = [ROOT / "README.md", ROOT / "docs" / "tour.md", *sorted(set(COOKBOOK.glob("*.md")) - {INDEX})]
TEXTS = [*PAGES, INDEX, ROOT / "README.zh-CN.md", ROOT / "CHANGELOG.md"]
# What no test can run: page and first line of the block -> why. The page says it above the block, after "Not run:".
NOT_RUN = {
    ("docs/cookbook/load.md", "# clothes_hub.yaml"): "it downloads from the Hugging Face hub",
    ("docs/cookbook/server_page.md", "$ docker build"): "it builds a container image",
    ("docs/cookbook/colour.md", "$ luodi run recipes/fashion.yaml"): "they download 162 MB and train for minutes",
    ("docs/cookbook/colour.md", "$ luodi run recipes/clipart.yaml"): "they download 131 MB",
    ("docs/cookbook/transfer.md", "$ luodi run recipes/transfer.yaml"): "it downloads 148 MB and trains for minutes",
    (
        "docs/cookbook/text_embeddings.md",
        "$ luodi run recipes/text_embeddings.yaml",
    ): "it downloads 122 MB and trains for minutes",
    ("docs/cookbook/text_bilstm.md", "$ luodi run recipes/text_bilstm.yaml"): "it trains for minutes",
    ("docs/cookbook/reviews.md", "$ luodi run recipes/reviews_en.yaml"): "they download 213 MB and train for minutes",
    ("docs/cookbook/translation.md", "$ luodi run recipes/translate_names.yaml"): "it trains for minutes",
    ("docs/cookbook/stamps.md", "$ luodi run recipes/stamps.yaml"): "it downloads 262 MB and trains for minutes",
    ("docs/cookbook/gpt.md", "$ luodi run recipes/gpt_shakespeare.yaml"): "it trains for minutes",
    (
        "docs/cookbook/gpt.md",
        "$ luodi run recipes/gpt_poems_zh.yaml",
    ): "it downloads 238 MB under the Gemma terms and trains for minutes",
    ("docs/cookbook/answers.md", "$ luodi run recipes/answers.yaml"): "it downloads 86 MB and trains for minutes",
    ("docs/cookbook/embeddings.md", "$ luodi run recipes/embeddings.yaml"): "it downloads 92 MB and trains for minutes",
    ("docs/cookbook/rnn.md", "$ luodi run recipes/rnn_poems.yaml"): "it trains for minutes",
    ("docs/cookbook/import.md", "$ luodi import google/vit-base-patch16-224"): "it downloads from the Hugging Face hub",
}
PREPARED = "luodi run recipes/digits.yaml"  # every page's folder begins as this left it, so it is not done again
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SHOWN = re.compile(r"luodi show ([\w]+)")
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?%?")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def digits_rehearsed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes and a rehearsal of the digits: what most pages begin from."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    session = Session(folder, cache)
    done = session.shell(f"{PREPARED} --rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def reading(
    request: pytest.FixtureRequest, digits_rehearsed: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[[Path], None]]:
    """Reads a page. All chosen pages are read side by side, one a core, unless pytest already works side by side."""

    def read(page: Path) -> None:
        session = Session(tmp_path_factory.mktemp(page.stem) / "project", cache)
        shutil.copytree(digits_rehearsed, session.folder)
        session.linked()
        try:
            _read(page, session)
        finally:
            session.end()

    if "PYTEST_XDIST_WORKER" in os.environ:
        yield read
        return
    items: list[Any] = [item for item in request.session.items if item.name.startswith("test_page_runs[")]
    with ThreadPoolExecutor(min(cores(), 4)) as pool:
        under_way = {item.callspec.params["page"]: pool.submit(read, item.callspec.params["page"]) for item in items}
        yield lambda page: under_way[page].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_runs(page: Path, reading: Callable[[Path], None]) -> None:
    reading(page)


def _read(page: Path, session: Session) -> None:
    left = []
    for block in blocks(page):
        where = f"{name_of(page)} line {block.line}"
        if block.above.startswith("Not run:"):
            left.append(_reason(page, block))
        elif block.kind in ("console", "bash"):
            _run_commands(session, block, where)
        elif block.kind == "yaml":
            _check_recipe(session, block, where)
        elif block.kind == "python" and block.file is None:
            done = session.python("\n".join(block.lines))
            assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
            session.linked()
        elif block.kind == "python":
            (session.folder / str(block.file)).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
        else:
            assert block.kind in ("text", "json"), f"{where}: {block.kind} is no kind of block that is checked"
    assert sorted(left) == sorted(key for key in NOT_RUN if key[0] == name_of(page))


def _reason(page: Path, block: Block) -> tuple[str, str]:
    keys = [key for key in NOT_RUN if key[0] == name_of(page) and block.first.startswith(key[1])]
    assert len(keys) == 1, f"{name_of(page)} line {block.line}: not run, and not in the list"
    assert NOT_RUN[keys[0]] in " ".join(block.above.split())
    return keys[0]


def _run_commands(session: Session, block: Block, where: str) -> None:
    commands = block.commands()
    code = 0
    for (command, shown), follows in zip(commands, [*commands[1:], ("", [])], strict=True):
        if command.startswith("make "):
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert f"\n{command.split()[1]}:" in targets, f"{where}: no target {command}"
            continue
        if command == PREPARED:
            continue
        if command == "echo $?":
            assert shown == [str(code)], f"{where}: the exit code is {code}"
            continue
        if command.startswith(("luodi serve ", "luodi watch ")) and command.endswith("&"):
            session.serve(command)
            continue
        done = session.shell(session.rehearsed(command))
        session.linked()
        code, said = done.returncode, done.stdout + done.stderr
        assert code == 0 or follows[0] == "echo $?", f"{where}: {command} ended with {code}:\n{said}"
        if code or not command.startswith("luodi run "):
            _compare(shown, said, f"{where}: {command}")


def _compare(shown: list[str], said: str, where: str) -> None:
    """Every line that the page shows was said, numbers aside; `...` stands for anything."""
    lines = {_plain(line) for line in said.splitlines()}
    for line in shown:
        first, dots, _ = line.partition("...")
        if dots:
            assert any(one.startswith(_plain(first)) for one in lines), f"{where} no longer says {line!r}:\n{said}"
        else:
            assert _plain(line) in lines, f"{where} no longer says {line!r}:\n{said}"


def _plain(line: str) -> str:
    return " ".join(NUMBER.sub("#", line).split())


def _check_recipe(session: Session, block: Block, where: str) -> None:
    """A whole recipe; or steps, or some of a recipe's keys, put into that of the digits."""
    text = "\n".join(block.lines) + "\n"
    value: Any = yaml.parse(text, where)
    if block.file:
        (session.folder / block.file).write_text(text, encoding="utf-8")
    if isinstance(value, list):
        value = {"steps": value}
    whole: Any = {} if "name" in value else yaml.parse(RECIPE.read_text(encoding="utf-8"))
    recipe = {**whole, **value}
    if ": ./" in text or "- ./" in text:  # a file of the reader's own: not to be loaded into the tests' process
        (session.folder / "own_block.yaml").write_text(yaml.dump(recipe), encoding="utf-8")
        done = session.shell("luodi plan own_block.yaml")
        assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
    else:
        Recipe.of(recipe, where=where)


def test_the_readme_shows_the_recipe_of_the_digits() -> None:
    shown = next(one for one in blocks(ROOT / "README.md") if one.kind == "yaml")
    assert list(shown.lines) == RECIPE.read_text(encoding="utf-8").splitlines()
    verbs = re.findall(r"`luodi ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(VERBS) <= set(verbs)


def test_every_delivered_row_has_one_page() -> None:
    titles = {page: page.read_text(encoding="utf-8").splitlines()[0] for page in PAGES if page.parent == COOKBOOK}
    rows = sorted(title.split()[1] for title in titles.values())
    assert rows == sorted(DELIVERED)
    index = INDEX.read_text(encoding="utf-8")
    for page, title in titles.items():
        assert f"| [{title.split()[1]}]({page.name}) |" in index, f"{page.name} is not in the index"


def test_the_translation_keeps_step() -> None:
    first, second = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
    assert [one.lines for one in blocks(first)] == [one.lines for one in blocks(second)]
    levels = [HEADING.findall(re.sub(BLOCK, "", page.read_text(encoding="utf-8"))) for page in (first, second)]
    assert levels[0] == levels[1]
    table = re.compile(r"<!-- table -->.*?<!-- /table -->", re.DOTALL)
    assert table.findall(first.read_text(encoding="utf-8")) == table.findall(second.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_what_a_page_points_to_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(re.sub(BLOCK, "", text)):
        assert target.startswith("http") or (page.parent / target).exists(), f"{name_of(page)}: no {target}"
    every = {name for slot in catalog.SLOTS for name in catalog.entries(slot)}
    assert set(SHOWN.findall(text)) <= every | {"NAME"}


def test_recipes_are_valid() -> None:
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        assert Recipe.read(path).name == path.stem
