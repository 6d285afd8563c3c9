"""The `speechd` command as a person meets it: its start, its end, and one clear line when it can't start."""

import plistlib
import signal
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from cli import DRAIN_SECONDS
from tests.server_process import SPEECHD, ServerProcess, environment


def start(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    settings = {"cache_dir": folder / "cache", "port": 0, **settings}
    return subprocess.run(
        [SPEECHD, "serve"],
        cwd=folder,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("speechd: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in lines[0]


def test_version_and_help() -> None:
    shown = subprocess.run([SPEECHD, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"speechd {version('speechd')}"
    shown = subprocess.run([SPEECHD, "--help"], capture_output=True, text=True, check=True)
    assert "serve" in shown.stdout


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"port": "abc"}, ("SPEECHD_PORT='abc'", "integer")),
        ({"tts_backend": "festival"}, ("SPEECHD_TTS_BACKEND='festival'", "kokoro_onnx")),
        ({"tts_model": "whisper-base"}, ("SPEECHD_TTS_MODEL='whisper-base'", "transcribes")),
        ({"stt_model": "no such model"}, ("SPEECHD_STT_MODEL='no such model'", "whisper-base")),
        ({"presets_dir": "/nowhere"}, ("SPEECHD_PRESETS_DIR='/nowhere'", "folder")),
        ({"host": "256.1.1.1"}, ("SPEECHD_HOST='256.1.1.1'",)),
    ],
)
def test_a_wrong_setting_ends_the_start(tmp_path: Path, settings: dict[str, object], parts: tuple[str, ...]) -> None:
    assert_one_line(start(tmp_path, **settings), *parts)


def test_a_folder_that_holds_no_audio_model(tmp_path: Path) -> None:
    model = tmp_path / "some-llm"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    assert_one_line(start(tmp_path, tts_model=model), "SPEECHD_TTS_MODEL", "'llama'", "speaks")


def test_an_unreadable_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert_one_line(start(tmp_path), ".env", "can't be read")


def test_a_broken_preset_is_named_with_its_key(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "mine.json").write_text('{"name": "mine", "voice": "af_sky", "pitch": 2}')
    assert_one_line(start(tmp_path, presets_dir=presets), "mine.json", "pitch")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_line(start(tmp_path, port=port), f"SPEECHD_PORT={port}", "in use")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(start(tmp_path, cache_dir=tmp_path / "file"), "cache")


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_asked_for_end_is_exit_code_zero(tmp_path: Path, model_cache: Path, number: signal.Signals) -> None:
    server = ServerProcess(tmp_path, cache_dir=model_cache, tts_modle="x")
    try:
        server.wait_until_ready()
        assert server.stop(number) == 0, server.log
    finally:
        server.process.kill()
        server.process.wait(60)
    assert "Traceback" not in server.log
    # Nothing is noted down outside of the cache folder, least of all by a library's telemetry.
    assert list(server.home.rglob("*")) == []
    assert "SPEECHD_TTS_MODLE is ignored; the nearest known one is SPEECHD_TTS_MODEL" in server.log


def test_the_launchd_agent_is_a_property_list_that_launchd_accepts() -> None:
    agent = plistlib.loads((Path(__file__).parent.parent / "com.example.speechd.plist").read_bytes())
    assert agent["ProgramArguments"][1:] == ["serve"]
    paths = (agent["ProgramArguments"][0], agent["WorkingDirectory"], agent["StandardErrorPath"])
    assert all(Path(path).is_absolute() for path in paths)
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] > DRAIN_SECONDS
