"""The same contract through the official JavaScript client: contract.mjs finds, the tests here judge."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clip
from tests.fakes import FakeTranscription
from tests.test_contract import LONG_TEXT, GatedSpeech, GatedTranscription, fake_app, fake_seconds, running, settings_in

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="there is no Node.js with npm here"
)

INSTALL_WITHIN_SECONDS = 180
RUN_WITHIN_SECONDS = 60
PCM_BYTES = 2 * 24_000 * fake_seconds(LONG_TEXT)


@dataclass
class Findings:
    """What the script printed, and the engine that it talked to."""

    found: dict[str, Any]
    transcription: FakeTranscription

    def __getitem__(self, name: str) -> Any:
        return self.found[name]


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    """The script is run once."""
    folder = tmp_path_factory.mktemp("js")
    install = subprocess.run(
        ["npm", "install", "--silent", "--no-save", "openai"],
        cwd=folder, capture_output=True, text=True, timeout=INSTALL_WITHIN_SECONDS, check=False,
    )  # fmt: skip
    if install.returncode:
        pytest.skip(f"npm can't install the client here: {install.stderr.strip()[-200:]}")
    shutil.copy(Path(__file__).with_name("contract.mjs"), folder)
    (folder / "speech.wav").write_bytes(clip("quick_brown_fox"))
    transcription = GatedTranscription()
    with running(fake_app(settings_in(folder), GatedSpeech(), transcription)) as url:
        done = subprocess.run(
            ["node", "contract.mjs", url, "speech.wav"],
            cwd=folder, capture_output=True, text=True, timeout=RUN_WITHIN_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield Findings(json.loads(done.stdout), transcription)


def test_js_speech(js: Findings) -> None:
    assert js["speech"] == {"bytes": PCM_BYTES, "type": "audio/pcm"}


def test_js_speech_streams(js: Findings) -> None:
    assert js["streamed"]["bytes"] == PCM_BYTES
    assert js["streamed"]["chunks"] > 1


def test_js_speech_events(js: Findings) -> None:
    events = js["events"]
    assert events["bytes"] == PCM_BYTES
    assert events["types"]["speech.audio.delta"] > 1
    assert events["types"]["speech.audio.done"] == 1
    usage = events["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] == round(fake_seconds(LONG_TEXT) / 0.025)


def test_js_transcription(js: Findings) -> None:
    assert js["json"]["text"] == "some words"
    assert js["json"]["usage"] == {"type": "duration", "seconds": 3}
    assert js["srt"].startswith("1\n00:00:0")
    assert [each["token"] for each in js["logprobs"]] == [" some", " words"]


def test_js_verbose_transcription(js: Findings) -> None:
    verbose = js["verbose"]
    assert verbose["language"] == "english"
    assert [word["word"] for word in verbose["words"]] == ["some", "words"]
    assert [segment["temperature"] for segment in verbose["segments"]] == [0.25]


def test_js_form_fields_arrive(js: Findings) -> None:
    """Lists as `name[]` and objects as `name[key]`, as this client writes them."""
    options = [options for _, options in js.transcription.calls if options.temperature == 0.25]
    assert [(each.keywords, each.words) for each in options] == [(("Ada", "Grace"), True)]


def test_js_transcription_stream(js: Findings) -> None:
    assert js["deltas"] == ["some words"]
    assert (js["done"]["type"], js["done"]["text"]) == ("transcript.text.done", "some words")
    assert js["done"]["usage"]["type"] == "tokens"


def test_js_translation(js: Findings) -> None:
    assert js["translation"] == {"text": "some words"}


def test_js_models(js: Findings) -> None:
    assert {"kokoro-82m", "whisper-base", "tts-1", "whisper-1"} <= set(js["models"])


@pytest.mark.parametrize(
    ("name", "status", "code", "param"),
    [
        ("badVoice", 400, "invalid_voice", "voice"),
        ("noModel", 404, "model_not_found", "model"),
        ("noAudio", 400, "invalid_audio", "file"),
    ],
)
def test_js_typed_errors(js: Findings, name: str, status: int, code: str, param: str) -> None:
    assert js[name] == {
        "typed": True,
        "status": status,
        "code": code,
        "param": param,
        "type": "invalid_request_error",
        "hasRequestId": True,
    }
