"""The README's examples do what they say: each is taken from the file as it stands and run against a real server."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, environment, running_server

pytestmark = pytest.mark.real

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCUMENTED_URL = "http://127.0.0.1:8880"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("readme"), cache_dir=model_cache) as server:
        yield server


def examples(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def the_example(language: str, marker: str, server: ServerProcess) -> str:
    """The one example that holds the marker, pointed at the server of this test."""
    (found,) = [example for example in examples(README, language) if marker in example]
    assert DOCUMENTED_URL in found
    return found.replace(DOCUMENTED_URL, server.url)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_example(server: ServerProcess, tmp_path: Path) -> None:
    heard = run(["bash", "-ec", the_example("sh", "curl", server)], tmp_path)
    mp3 = (tmp_path / "hello.mp3").read_bytes()
    assert mp3[0] == 0xFF
    assert "spoken on my own machine" in json.loads(heard)["text"].lower()


def test_the_python_example(server: ServerProcess, tmp_path: Path) -> None:
    heard = run([sys.executable, "-c", the_example("python", "import OpenAI", server)], tmp_path)
    assert "hello from python" in heard.lower()


@pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="there is no Node.js with npm here"
)
def test_the_javascript_example(server: ServerProcess, tmp_path: Path) -> None:
    run(["npm", "install", "--silent", "--no-save", "openai"], tmp_path)
    (tmp_path / "example.mjs").write_text(the_example("js", "import OpenAI", server), encoding="utf-8")
    heard = run(["node", "example.mjs"], tmp_path)
    assert "hello from javascript" in heard.lower().replace("java script", "javascript")


def test_the_readme_links_to_files_that_exist() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link


def test_the_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake (\w+)", README)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
