"""docs/api.md is true: its examples run, their answers have the shape shown, and the tests that it names exist."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import environment, running_server

REPOSITORY = Path(__file__).parent.parent
API = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
DOCUMENTED_URL = "http://127.0.0.1:8880"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
EXPECTED_STATUS = re.compile(r"^# answers (\d+)$", flags=re.MULTILINE)
CURL_FAILED_BY_STATUS = 22
RUN_WITHIN_SECONDS = 120
CONTRACT_TESTS = "tests/test_contract.py"  # where a test is that is named without its file
TEST_NAME = re.compile(r"`(?:(tests/test_\w+\.py)::)?(test_\w+)`")


@dataclass(frozen=True)
class Example:
    """A command, and what the page says that it answers, if it does."""

    command: str
    answer_form: str | None
    answer: str | None

    @property
    def expected_status(self) -> str | None:
        found = EXPECTED_STATUS.search(self.command)
        return found[1] if found else None


def documented_examples() -> list[Example]:
    blocks = BLOCK.findall(API)
    examples = []
    for (form, text), (next_form, next_text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if form == "sh":
            has_answer = next_form in ("json", "text")
            examples.append(Example(text, next_form if has_answer else None, next_text if has_answer else None))
    return examples


def shape(value: Any) -> Any:
    """The keys of a JSON value, all the way down; a list is as its first item."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def shapes_of_events(text: str) -> list[Any]:
    """The shapes of a stream's events, each once, by the order of their coming."""
    shapes: list[Any] = []
    for line in text.splitlines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            event = data if data == "[DONE]" else {"": json.loads(data)["type"], **shape(json.loads(data))}
            if event not in shapes:
                shapes.append(event)
    return shapes


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def rows() -> Iterator[list[str]]:
    """The cells of each row of each table that has a column of tests."""
    has_tests = False
    for line in API.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            has_tests = False
        elif cells[-1] == "test":
            has_tests = True
        elif has_tests and not set(cells[-1]) <= set("-"):
            yield cells


def test_every_row_names_its_test() -> None:
    found = list(rows())
    assert len(found) > 100
    for cells in found:
        assert TEST_NAME.search(cells[-1]), cells


def test_the_named_tests_exist() -> None:
    named = TEST_NAME.findall(API)
    assert len(named) == len(re.findall(r"\btest_\w+`", API))
    for file, name in named:
        if name != "test_name":
            assert name in names_in(file or CONTRACT_TESTS), f"{file or CONTRACT_TESTS}::{name}"


def test_the_json_parses() -> None:
    for form, text in BLOCK.findall(API):
        if form == "json":
            json.loads(text)


def test_the_lines_are_short() -> None:
    in_block = False
    for line in API.splitlines():
        in_block ^= line.startswith("```")
        assert in_block or line.startswith("|") or len(line) <= 120, line


@pytest.mark.real
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_examples_run(tmp_path: Path, model_cache: Path) -> None:
    """All of them, in order, in one folder; what is shown after one has the shape of what it answers."""
    examples = documented_examples()
    assert len(examples) > 10
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n", encoding="utf-8")
    (tmp_path / "server").mkdir()
    with running_server(tmp_path / "server", cache_dir=model_cache) as server:
        for example in examples:
            assert DOCUMENTED_URL in example.command
            done = subprocess.run(
                ["bash", "-ec", example.command.replace(DOCUMENTED_URL, server.url)],
                cwd=tmp_path,
                env=environment() | {"CURL_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=RUN_WITHIN_SECONDS,
                check=False,
            )
            if example.expected_status is None:
                assert done.returncode == 0, (example.command, done.stdout, done.stderr)
            else:
                assert done.returncode == CURL_FAILED_BY_STATUS, (example.command, done.stdout)
                assert example.expected_status in done.stderr
            if example.answer_form == "json":
                assert shape(json.loads(done.stdout)) == shape(json.loads(example.answer or "")), example.command
            elif example.answer_form == "text":
                assert shapes_of_events(done.stdout) == shapes_of_events(example.answer or ""), example.command
    assert (tmp_path / "speech.wav").stat().st_size > 10_000
    assert (tmp_path / "whole.wav").read_bytes()[:4] == b"RIFF"
