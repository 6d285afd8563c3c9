"""OpenAI's audio contract, field by field and event by event, as its official Python client sees it.

The real app answers on a real socket, over small fake engines that show what reached them. What only real models can
show stands in test_contract_real.py, the plain HTTP of the routes in test_routes.py.
"""

import asyncio
import base64
import io
import json
import re
import socket
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent, TranscriptionVerbose

from backends.protocols import ModelVoice, Pcm, SpeechOptions, Spoken, Transcript, TranscriptionOptions
from config import Settings
from errors import ModelNotReady
from model_catalog import ModelCatalog
from model_pool import ModelPool
from openai_api import OPENAI_SPEECH_MODELS, OPENAI_TRANSCRIPTION_MODELS
from server import create_app
from tests.conftest import clip, clip_pcm, decoded_seconds
from tests.fakes import SAMPLE_RATE, SAMPLES_PER_CHARACTER, FakeSpeech, FakeTranscription
from tts_engine import TtsEngine
from voice_presets import SHIPPED_PRESETS, load_presets

START_WITHIN_SECONDS = 30
GATE_OPENS_WITHIN_SECONDS = 20  # only what does not stream waits for so long, and then fails

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip
SEGMENT_FIELDS = {
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob",
}  # fmt: skip

PRESETS = load_presets(SHIPPED_PRESETS)

LONG_TEXT = "This is one sentence of the text. " * 12
REFERENCE = "data:audio/wav;base64," + base64.b64encode(clip("hello_world")).decode()

# The client marks translations as deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


class Gate:
    """Where a fake engine waits, before its second piece of work, until the test has seen the first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def passed(self, calls: int) -> None:
        if calls and not self._open.wait(GATE_OPENS_WITHIN_SECONDS):
            raise TimeoutError("nobody has seen the first piece")


class GatedSpeech(FakeSpeech):
    """Has the voices that OpenAI's names stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def voices(self) -> Sequence[ModelVoice]:
        return [ModelVoice(name) for name in sorted({preset.voice for preset in PRESETS.values()} | {"bm_george"})]

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        self.gate.passed(len(self.calls))
        yield from super().speak(text, options)


class GatedTranscription(FakeTranscription):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        self.gate.passed(len(self.calls))
        return super().transcribe(pcm, options)


@dataclass
class Api:
    """A running server, its engines, and the client."""

    url: str
    speech: GatedSpeech
    transcription: GatedTranscription
    client: openai.OpenAI


@contextmanager
def running(app: FastAPI, wait_for: str = "/ready") -> Iterator[str]:
    """The app on a free port of loopback, once the path answers 200; gives its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="server")
        thread.start()
        try:
            deadline = time.monotonic() + START_WITHIN_SECONDS
            while httpx.get(url + wait_for).status_code != 200:
                assert time.monotonic() < deadline, "the server is not ready"
                time.sleep(0.01)
            yield url
        finally:
            server.should_exit = True
            thread.join()


def settings_in(folder: Path, **changes: Any) -> Settings:
    return Settings(_env_file=None, cache_dir=folder / "cache", data_dir=folder / "data").model_copy(update=changes)


def fake_app(settings: Settings, speech: FakeSpeech, transcription: FakeTranscription) -> FastAPI:
    pool = ModelPool(settings, ModelCatalog(settings), lambda *_: speech, lambda *_: transcription)
    return create_app(settings, pool)


def strict_client(url: str, max_retries: int = 0) -> openai.OpenAI:
    """The official client, refusing any answer that is not of its types."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=max_retries, _strict_response_validation=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    speech, transcription = GatedSpeech(), GatedTranscription()
    app = fake_app(settings_in(tmp_path_factory.mktemp("contract")), speech, transcription)
    with running(app) as url, strict_client(url) as client:
        yield Api(url, speech, transcription, client)


@pytest.fixture
def api(server: Api) -> Api:
    """The server with its engines as new."""
    vars(server.speech).update(vars(GatedSpeech()))
    vars(server.transcription).update(vars(GatedTranscription()))
    return server


def run_async(api: Api, work: Callable[[openai.AsyncOpenAI], Any]) -> Any:
    """Give the async client to the work, and run it."""

    async def with_client() -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{api.url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
        ) as client:
            return await work(client)

    return asyncio.run(with_client())


def speak(api: Api, text: str = "Hello there.", **fields: Any) -> bytes:
    fields = {"model": "tts-1", "voice": "alloy"} | fields
    return api.client.audio.speech.create(input=text, **fields).content


def transcribe(api: Api, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": clip("quick_brown_fox")} | fields
    return api.client.audio.transcriptions.create(**fields)


def translate(api: Api, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": clip("quick_brown_fox")} | fields
    return api.client.audio.translations.create(**fields)


def speech_events(api: Api, text: str = "Hello there.", **fields: Any) -> Iterator[dict[str, Any]]:
    """The events of a spoken text, through the client's own reader of events."""
    body = {"model": "tts-1", "voice": "alloy", "input": text, "stream_format": "sse"} | fields
    stream: openai.Stream[Any] = api.client.post(
        "/audio/speech", body=body, cast_to=object, stream=True, stream_cls=openai.Stream[Any]
    )
    with stream:
        yield from stream


def assert_openai_error(error: openai.APIError, code: str | None, param: str | None) -> None:
    """All four keys, as the client shows them."""
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert (error.code, error.param) == (code, param), error
    assert error.body["message"]
    if isinstance(error, openai.APIStatusError):
        assert error.request_id
        assert error.type == ("invalid_request_error" if error.status_code < 500 else "server_error")


def assert_bad_request(call: Callable[[], Any], code: str, param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        call()
    assert_openai_error(refused.value, code, param)


def fake_seconds(text: str) -> float:
    """How long the fake engine speaks a text."""
    return sum(character.isalnum() for character in text) * SAMPLES_PER_CHARACTER / SAMPLE_RATE


def wav_of(pcm: Pcm) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((pcm * 32_767).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def long_recording() -> bytes:
    """40 seconds of sentences with pauses between: more than one window for the model."""
    sentence, pause = clip_pcm("quick_brown_fox"), np.zeros(16_000, np.float32)
    copies = int(np.ceil(40 * 16_000 / (len(sentence) + len(pause))))
    return wav_of(np.tile(np.concatenate([sentence, pause]), copies))


# Speech: fields


@pytest.mark.parametrize("model", [*OPENAI_SPEECH_MODELS, "kokoro-82m"])
def test_speech_model(api: Api, model: str) -> None:
    assert speak(api, model=model)
    assert len(api.speech.calls) == 1


def test_speech_input(api: Api) -> None:
    speak(api, "Exactly these words.")
    assert [text for text, _ in api.speech.calls] == ["Exactly these words."]
    assert_bad_request(lambda: speak(api, ""), "invalid_input", "input")


def test_speech_input_limit(api: Api) -> None:
    assert speak(api, "a " * 2048, response_format="pcm")  # 4096 characters
    assert_bad_request(lambda: speak(api, "a " * 2048 + "a"), "input_too_long", "input")


def test_speech_input_limit_is_a_setting(tmp_path: Path) -> None:
    app = fake_app(settings_in(tmp_path, max_input_length=5), GatedSpeech(), GatedTranscription())
    with running(app) as url, strict_client(url) as client:
        client.audio.speech.create(model="tts-1", voice="alloy", input="12345")
        with pytest.raises(openai.BadRequestError, match="the limit is 5"):
            client.audio.speech.create(model="tts-1", voice="alloy", input="123456")


@pytest.mark.parametrize("voice", OPENAI_VOICES)
def test_speech_voice_of_openai(api: Api, voice: str) -> None:
    speak(api, voice=voice)
    assert api.speech.calls[-1][1].voice == PRESETS[voice].voice


def test_speech_voice_of_the_model(api: Api) -> None:
    speak(api, voice="bm_george")
    assert api.speech.calls[-1][1].voice == "bm_george"


def test_speech_voice_by_id(api: Api) -> None:
    speak(api, voice={"id": "bm_george"})
    assert api.speech.calls[-1][1].voice == "bm_george"


def test_speech_instructions(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    speak(api, instructions="Speak softly.")
    assert api.speech.calls[-1][1].instructions == "Speak softly."
    assert "instructions" not in caplog.text


def test_speech_instructions_are_ignored_by_models_without(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.speech.takes_instructions = False
    with caplog.at_level("INFO", logger="speechd"):
        assert speak(api, instructions="Speak softly.")
    assert api.speech.calls[-1][1].instructions is None
    assert "takes no instructions" in caplog.text


@pytest.mark.parametrize("response_format", CONTENT_TYPES)
def test_speech_response_format(api: Api, response_format: str) -> None:
    answer = api.client.audio.speech.create(
        model="tts-1", voice="alloy", input=LONG_TEXT, response_format=response_format  # type: ignore[arg-type]
    )  # fmt: skip
    assert answer.response.headers["content-type"] == CONTENT_TYPES[response_format]
    if response_format == "pcm":
        samples = np.frombuffer(answer.content, "<i2")
        assert len(samples) == fake_seconds(LONG_TEXT) * 24_000
        assert 0.4 < np.abs(samples).max() / 32_768 < 0.6  # the tone, so the bytes are in the right order
    else:
        assert decoded_seconds(answer.content) == pytest.approx(fake_seconds(LONG_TEXT), abs=0.1)


def test_speech_response_format_default(api: Api) -> None:
    answer = api.client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")
    assert answer.response.headers["content-type"] == "audio/mpeg"


def test_speech_speed(api: Api) -> None:
    speak(api)
    speak(api, speed=1.5)
    assert [options.speed for _, options in api.speech.calls] == [1.0, 1.5]
    for speed in (0.24, 4.01):
        assert_bad_request(lambda speed=speed: speak(api, speed=speed), "invalid_speed", "speed")  # type: ignore[misc]


def test_speech_stream_format_audio(api: Api) -> None:
    assert speak(api, stream_format="audio") == speak(api)


@pytest.mark.parametrize("response_format", CONTENT_TYPES)
def test_speech_stream_format_sse(api: Api, response_format: str) -> None:
    """The deltas joined are the file, in the asked format; the last event tells what it took."""
    *deltas, done = speech_events(api, LONG_TEXT, response_format=response_format)
    assert len(deltas) > 2
    for delta in deltas:
        assert set(delta) == {"type", "audio"}
        assert delta["type"] == "speech.audio.delta"
    file = b"".join(base64.b64decode(delta["audio"], validate=True) for delta in deltas)
    assert file == speak(api, LONG_TEXT, response_format=response_format)
    assert set(done) == {"type", "usage"}
    assert done["type"] == "speech.audio.done"


def test_speech_usage(api: Api) -> None:
    """Tokens as the model counts them, and frames of 25 ms of sound."""
    *_, done = speech_events(api, LONG_TEXT)
    letters = sum(character.isalnum() for character in LONG_TEXT)
    frames = round(fake_seconds(LONG_TEXT) / 0.025)
    assert done["usage"] == {"input_tokens": letters, "output_tokens": frames, "total_tokens": letters + frames}


def test_speech_events_on_the_wire(api: Api) -> None:
    """`data:` lines with a blank line after each and no `event:` line, whatever the client says it accepts."""
    with api.client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello.", stream_format="sse"
    ) as response:
        assert response.http_request.headers["accept"] == "application/octet-stream"
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        body = response.read().decode()
    assert re.fullmatch(r"(data: \{[^\n]+\}\n\n)+", body)


def test_speech_stream_false(api: Api) -> None:
    """The extension: a whole file that knows its length."""
    answer = api.client.audio.speech.create(
        model="tts-1", voice="alloy", input=LONG_TEXT, response_format="wav", extra_body={"stream": False}
    )
    assert int(answer.response.headers["content-length"]) == len(answer.content)
    assert int.from_bytes(answer.content[4:8], "little") == len(answer.content) - 8
    assert int.from_bytes(answer.content[40:44], "little") == len(answer.content) - 44
    with wave.open(io.BytesIO(answer.content)) as reader:
        assert reader.getnframes() / reader.getframerate() == pytest.approx(fake_seconds(LONG_TEXT))


def test_speech_stream_true(api: Api) -> None:
    answer = api.client.audio.speech.create(
        model="tts-1", voice="alloy", input="Hello.", response_format="wav", extra_body={"stream": True}
    )
    assert "content-length" not in answer.response.headers
    assert answer.content[4:8] == answer.content[40:44] == b"\xff\xff\xff\xff"


def test_speech_unknown_fields(api: Api) -> None:
    assert speak(api, extra_body={"lang_code": "a", "download_link": {"x": [1]}})


def post_json(api: Api, body: bytes) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{api.url}/v1/audio/speech", content=body, headers=headers)


@pytest.mark.parametrize("field", ["voice", "instructions", "response_format", "speed", "stream_format", "stream"])
def test_speech_null_is_as_good_as_absent(api: Api, field: str) -> None:
    assert speak(api, extra_body={field: None})


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("input", "invalid_input"),
        ("voice", "invalid_voice"),
        ("model", "invalid_request"),
        ("instructions", "invalid_request"),
    ],
)
def test_speech_text_that_is_no_unicode(api: Api, field: str, code: str) -> None:
    """JSON can hold half of a surrogate pair."""
    body = {"model": "tts-1", "voice": "alloy", "input": "Hello.", field: "\ud800"}
    answer = post_json(api, json.dumps(body).encode())
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, field)


def test_speech_body_that_is_no_json(api: Api) -> None:
    answer = post_json(api, b'{"model": "tts-1",')
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "The body is not valid JSON.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_request",
    }


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("model", 1, "invalid_request"),
        ("input", ["a"], "invalid_input"),
        ("voice", 1, "invalid_voice"),
        ("voice", {"name": "alloy"}, "invalid_voice"),
        ("instructions", 1, "invalid_request"),
        ("instructions", "x" * 4097, "invalid_request"),
        ("response_format", "ogg", "invalid_format"),
        ("response_format", 1, "invalid_format"),
        ("speed", "1", "invalid_speed"),
        ("stream_format", "websocket", "invalid_request"),
        ("stream_format", True, "invalid_request"),
        ("stream", "yes", "invalid_request"),
    ],
)
def test_speech_wrong_types(api: Api, field: str, value: object, code: str) -> None:
    assert_bad_request(lambda: speak(api, extra_body={field: value}), code, field)


# Speech: the body


@pytest.mark.parametrize("response_format", CONTENT_TYPES)
def test_speech_streams_while_it_is_made(api: Api, response_format: Any) -> None:
    """The first second is here before the second piece of the text is spoken, and all is one file."""
    whole = speak(api, LONG_TEXT, response_format=response_format)
    first_second = len(whole) / fake_seconds(LONG_TEXT)
    api.speech.calls.clear()
    api.speech.gate.shut()
    received = b""
    with api.client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG_TEXT, response_format=response_format
    ) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        for part in response.iter_bytes():
            received += part
            if len(received) > first_second:
                api.speech.gate.open()
    assert len(api.speech.calls) > 2
    assert received == whole
    first_bytes = {"opus": b"OggS\0\x02", "flac": b"fLaC", "wav": b"RIFF"}.get(response_format)
    if first_bytes:
        assert received.startswith(first_bytes)
        assert received.count(first_bytes) == 1


def test_speech_events_come_while_it_is_made(api: Api) -> None:
    api.speech.gate.shut()
    sound = 0
    for event in speech_events(api, LONG_TEXT, response_format="pcm"):
        sound += len(base64.b64decode(event.get("audio", "")))
        if sound > 2 * 24_000:
            api.speech.gate.open()
    assert sound == 2 * 24_000 * fake_seconds(LONG_TEXT)


def test_speech_is_written_to_a_file(api: Api, tmp_path: Path) -> None:
    with api.client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello.", response_format="flac"
    ) as response:
        response.stream_to_file(tmp_path / "speech.flac")
    assert decoded_seconds((tmp_path / "speech.flac").read_bytes()) == pytest.approx(fake_seconds("Hello."), abs=0.01)


def test_speech_async(api: Api) -> None:
    async def work(client: openai.AsyncOpenAI) -> tuple[bytes, bytes]:
        whole = await client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", response_format="pcm")
        async with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input="Hello.", response_format="pcm"
        ) as response:
            return whole.content, b"".join([part async for part in response.iter_bytes()])

    whole, streamed = run_async(api, work)
    assert whole == streamed
    assert len(whole) == 2 * 24_000 * fake_seconds("Hello.")


def test_speech_that_fails_at_once_has_a_real_status(api: Api) -> None:
    """The first chunk is made before the status line, for events too."""
    api.speech.failure = RuntimeError("the engine's own words")
    for stream_format in ("audio", "sse"):
        with pytest.raises(openai.InternalServerError) as failed:
            speak(api, stream_format=stream_format)
        assert failed.value.status_code == 500
        assert_openai_error(failed.value, "internal_error", None)
        assert "own words" not in failed.value.message


def test_speech_error_in_the_events(api: Api) -> None:
    api.speech.failure, api.speech.fail_at_call = RuntimeError("the engine's own words"), 1
    events: list[dict[str, Any]] = []
    with pytest.raises(openai.APIError) as failed:
        events.extend(speech_events(api, LONG_TEXT))
    assert {event["type"] for event in events} <= {"speech.audio.delta"}
    assert_openai_error(failed.value, "internal_error", None)
    assert "own words" not in failed.value.message


def test_speech_error_in_the_sound_breaks_the_connection(api: Api) -> None:
    """A file that looks whole is whole."""
    api.speech.failure, api.speech.fail_at_call = RuntimeError("boom"), 1
    body = {"model": "tts-1", "voice": "alloy", "input": LONG_TEXT}
    with httpx.stream("POST", f"{api.url}/v1/audio/speech", json=body) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()


# Transcriptions: fields


@pytest.mark.parametrize("model", [*OPENAI_TRANSCRIPTION_MODELS, "whisper-base"])
def test_transcription_model(api: Api, model: str) -> None:
    assert transcribe(api, model=model).text == "some words"


@pytest.mark.parametrize(
    "file",
    [
        clip("quick_brown_fox"),
        io.BytesIO(clip("quick_brown_fox")),
        ("speech.mp3", clip("quick_brown_fox"), "audio/mpeg"),
        ("notes.txt", clip("quick_brown_fox"), "text/plain"),
    ],
    ids=["bytes", "stream", "wrong type", "wrong name"],
)
def test_transcription_file(api: Api, file: Any) -> None:
    """The content decides, never the name."""
    assert transcribe(api, file=file).text == "some words"


@pytest.mark.parametrize("response_format", ["mp3", "opus", "aac", "flac", "wav"])
def test_transcription_file_formats(api: Api, response_format: str) -> None:
    """Whatever speechd writes it can read; a tone is no speech, so no words come of it."""
    sound = speak(api, LONG_TEXT, response_format=response_format)
    verbose = transcribe(api, file=sound, response_format="verbose_json")
    assert verbose.duration == pytest.approx(fake_seconds(LONG_TEXT), abs=0.1)
    assert verbose.text == ""


def test_transcription_file_that_is_no_audio(api: Api) -> None:
    assert_bad_request(lambda: transcribe(api, file=b"this is text"), "invalid_audio", "file")


def options_of(api: Api) -> TranscriptionOptions:
    """What the model was asked last."""
    return api.transcription.calls[-1][1]


def test_transcription_language(api: Api) -> None:
    assert transcribe(api, language="de").languages[0].code == "de"
    assert options_of(api).language == "de"
    transcribe(api)
    assert options_of(api).language is None
    assert_bad_request(lambda: transcribe(api, language="klingon"), "invalid_language", "language")


def test_transcription_languages(api: Api) -> None:
    """The most probable one of those is taken, though another is more probable still."""
    assert transcribe(api, languages=["fr", "de"]).languages[0].code == "de"
    assert options_of(api).language == "de"
    assert_bad_request(lambda: transcribe(api, languages=["de", "klingon"]), "invalid_language", "languages")


def test_transcription_prompt(api: Api) -> None:
    transcribe(api, prompt="Names: Ada, Grace.")
    assert options_of(api).prompt == "Names: Ada, Grace."


def test_transcription_prompt_in_braces(api: Api) -> None:
    transcribe(api, prompt='{"name": "Ada"}')
    assert options_of(api).prompt == '{"name": "Ada"}'


def test_transcription_keywords(api: Api) -> None:
    transcribe(api, keywords=["Zyxl", "Kokoro, two"])
    assert options_of(api).keywords == ("Zyxl", "Kokoro, two")
    assert_bad_request(lambda: transcribe(api, keywords=["a"] * 101), "invalid_request", "keywords")


def test_transcription_temperature(api: Api) -> None:
    transcribe(api)
    transcribe(api, temperature=0.4)
    assert [options.temperature for _, options in api.transcription.calls] == [0.0, 0.4]
    assert_bad_request(lambda: transcribe(api, temperature=1.1), "invalid_request", "temperature")


def test_transcription_json(api: Api) -> None:
    answer = api.client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=clip("quick_brown_fox"), response_format="json"
    )
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content) == {
        "text": "some words",
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": 3},
    }
    assert transcribe(api).to_dict() == json.loads(answer.content)  # json is the default


def test_transcription_text(api: Api) -> None:
    assert transcribe(api, response_format="text") == "some words\n"


def test_transcription_srt(api: Api) -> None:
    text = transcribe(api, response_format="srt")
    assert re.fullmatch(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nsome words\n", text)


def test_transcription_vtt(api: Api) -> None:
    text = transcribe(api, response_format="vtt")
    assert re.fullmatch(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\nsome words\n", text)


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_transcription_raw_bodies_are_plain_text(api: Api, response_format: Any) -> None:
    answer = api.client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=clip("quick_brown_fox"), response_format=response_format
    )
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_transcription_verbose_json(api: Api) -> None:
    answer = api.client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=clip("quick_brown_fox"), response_format="verbose_json"
    )
    body = json.loads(answer.content)
    assert set(body) == {"task", "language", "duration", "text", "segments", "usage"}
    assert (body["task"], body["language"], body["text"]) == ("transcribe", "english", "some words")
    assert body["duration"] == pytest.approx(len(clip_pcm("quick_brown_fox")) / 16_000, abs=0.01)
    assert body["usage"] == {"type": "duration", "seconds": 3}
    assert isinstance(answer.parse(), TranscriptionVerbose)


def test_transcription_segment_fields(api: Api, long_recording: bytes) -> None:
    """Every field of every segment, with the times and `seek` of the recording, not of the window."""
    answer = transcribe(api, file=long_recording, response_format="verbose_json", temperature=0.25)
    first, second = (segment.to_dict() for segment in answer.segments)
    for number, segment in enumerate((first, second)):
        assert set(segment) == SEGMENT_FIELDS
        assert segment["id"] == number
        assert segment["tokens"] == [50364, 512, 2283, 50414]
        assert (segment["text"], segment["temperature"], segment["avg_logprob"]) == (" some words", 0.25, -0.25)
        assert (segment["compression_ratio"], segment["no_speech_prob"]) == (0.5, 0.125)
        assert segment["end"] == pytest.approx(segment["start"] + 1.0)
        assert segment["seek"] == pytest.approx(100 * segment["start"], abs=1)
    assert first["start"] < 1
    assert 20 < second["start"] < 31
    assert answer.text == "some words some words"


@pytest.mark.parametrize(
    ("granularities", "has_segments", "has_words"),
    [(None, True, False), (["segment"], True, False), (["word"], False, True), (["word", "segment"], True, True)],
    ids=["none", "segment", "word", "both"],
)
def test_transcription_timestamp_granularities(
    api: Api, granularities: list[str] | None, has_segments: bool, has_words: bool
) -> None:
    fields: dict[str, Any] = {"timestamp_granularities": granularities} if granularities else {}
    answer = transcribe(api, response_format="verbose_json", **fields)
    assert (answer.segments is not None, answer.words is not None) == (has_segments, has_words)
    assert options_of(api).words == has_words


def test_transcription_words(api: Api, long_recording: bytes) -> None:
    answer = transcribe(
        api, file=long_recording, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert [word.word for word in answer.words] == ["some", "words"] * 2
    assert [set(word.to_dict()) for word in answer.words] == [{"word", "start", "end"}] * 4
    for segment, (some, words) in zip(answer.segments, (answer.words[:2], answer.words[2:]), strict=True):
        assert some.start == pytest.approx(segment.start)
        assert some.end == pytest.approx(words.start)
        assert words.end == pytest.approx(segment.end)


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt"])
def test_transcription_timestamp_granularities_need_verbose_json(api: Api, response_format: str) -> None:
    assert_bad_request(
        lambda: transcribe(api, response_format=response_format, timestamp_granularities=["word"]),
        "invalid_request",
        "timestamp_granularities",
    )


def test_transcription_include_logprobs(api: Api) -> None:
    answer = transcribe(api, include=["logprobs"])
    assert [each.to_dict() for each in answer.logprobs] == [
        {"token": text, "logprob": -0.25, "bytes": list(text.encode())} for text in (" some", " words")
    ]
    assert options_of(api).logprobs
    assert transcribe(api).logprobs is None
    assert not options_of(api).logprobs


def test_transcription_include_needs_json(api: Api) -> None:
    for response_format in ("text", "srt", "vtt", "verbose_json"):
        assert_bad_request(
            lambda chosen=response_format: transcribe(api, response_format=chosen, include=["logprobs"]),  # type: ignore[misc]
            "invalid_request",
            "include",
        )
    assert_bad_request(lambda: transcribe(api, include=["everything"]), "invalid_request", "include")


def test_transcription_chunking_strategy_auto(api: Api) -> None:
    transcribe(api)
    transcribe(api, chunking_strategy="auto")
    (unset, _), (auto, _) = api.transcription.calls
    assert unset == auto


def test_transcription_chunking_strategy_threshold(api: Api) -> None:
    """A threshold that no sound passes leaves nothing to transcribe."""
    strategy = {"type": "server_vad", "threshold": 1.0}
    assert transcribe(api, chunking_strategy=strategy).text == ""
    assert api.transcription.calls == []


def test_transcription_chunking_strategy_prefix_padding(api: Api) -> None:
    silence = np.zeros(3 * 16_000, np.float32)
    recording = wav_of(np.concatenate([silence, clip_pcm("quick_brown_fox"), silence]))
    for padding in (0, 1_000):
        strategy = {"type": "server_vad", "prefix_padding_ms": padding}
        transcribe(api, file=recording, chunking_strategy=strategy)
    (without, _), (padded, _) = api.transcription.calls
    assert padded - without >= 16_000


def test_transcription_chunking_strategy_silence_duration(api: Api, long_recording: bytes) -> None:
    """Where the pauses end no stretch of speech, the recording is cut at another place."""
    for milliseconds in (200, 5_000):
        strategy = {"type": "server_vad", "silence_duration_ms": milliseconds}
        transcribe(api, file=long_recording, chunking_strategy=strategy)
    windows = [samples for samples, _ in api.transcription.calls]
    assert windows[: len(windows) // 2] != windows[len(windows) // 2 :]


@pytest.mark.parametrize(
    "strategy",
    ["sometimes", {"type": "client_vad"}, {"type": "server_vad", "threshold": 2}, {"threshold": 0.5}],
    ids=str,
)
def test_transcription_chunking_strategy_that_is_none(api: Api, strategy: object) -> None:
    assert_bad_request(lambda: transcribe(api, chunking_strategy=strategy), "invalid_request", "chunking_strategy")


def post_form(api: Api, *fields: tuple[str, str], path: str = "transcriptions") -> httpx.Response:
    """A form as other clients than OpenAI's may send it."""
    parts: list[tuple[str, Any]] = [("file", ("upload", clip("quick_brown_fox"), "application/octet-stream"))]
    parts += [(name, (None, value)) for name, value in (("model", "whisper-1"), *fields)]
    return httpx.post(f"{api.url}/v1/audio/{path}", files=parts)


def test_transcription_lists_without_brackets(api: Api) -> None:
    """curl users leave them out."""
    answer = post_form(api, ("response_format", "verbose_json"), ("timestamp_granularities", "word"))
    assert [word["word"] for word in answer.json()["words"]] == ["some", "words"]


def test_transcription_objects_as_json(api: Api) -> None:
    answer = post_form(api, ("chunking_strategy", '{"type": "server_vad", "threshold": 1.0}'))
    assert answer.json()["text"] == ""


def test_transcription_empty_fields_count_as_absent(api: Api) -> None:
    empty = ("language", "prompt", "temperature", "response_format", "stream", "timestamp_granularities[]")
    answer = post_form(api, *((name, "") for name in empty))
    assert answer.json()["text"] == "some words"
    assert options_of(api) == TranscriptionOptions()


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")],
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy", "auto")],
        [("keywords[]", "Ada"), ("keywords[name]", "Grace")],
        [("keywords[name]", "Grace"), ("keywords[]", "Ada")],
        [("prompt", "Ada"), ("prompt[name]", "Grace")],
    ],
    ids=lambda fields: " ".join(name for name, _ in fields),
)
def test_transcription_one_field_in_two_forms(api: Api, fields: list[tuple[str, str]]) -> None:
    answer = post_form(api, *fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == fields[0][0].partition("[")[0]


def test_transcription_known_speakers(api: Api) -> None:
    """Checked, and without effect as long as no model tells speakers apart."""
    names, references = ["agent", "customer"], [REFERENCE, REFERENCE]
    answer = transcribe(api, known_speaker_names=names, known_speaker_references=references)
    assert answer.text == "some words"
    assert_bad_request(
        lambda: transcribe(api, known_speaker_names=list("abcde"), known_speaker_references=[REFERENCE] * 5),
        "invalid_request",
        "known_speaker_names",
    )
    assert_bad_request(
        lambda: transcribe(api, known_speaker_names=names, known_speaker_references=[REFERENCE]),
        "invalid_request",
        "known_speaker_references",
    )
    assert_bad_request(
        lambda: transcribe(api, known_speaker_names=["a"], known_speaker_references=["http://example.com/a.wav"]),
        "invalid_request",
        "known_speaker_references",
    )


def test_transcription_diarized_json(api: Api) -> None:
    """There is no model here that tells speakers apart, and a made-up speaker would be worse than none."""
    for model in ("whisper-1", "gpt-4o-transcribe-diarize"):
        with pytest.raises(openai.BadRequestError, match="tells speakers apart") as refused:
            transcribe(api, model=model, response_format="diarized_json")
        assert_openai_error(refused.value, "invalid_request", "response_format")


@pytest.mark.parametrize("model", [name for name in OPENAI_TRANSCRIPTION_MODELS if name.startswith("gpt-")])
def test_transcription_usage_in_tokens(api: Api, model: str) -> None:
    usage = transcribe(api, model=model, prompt="three more words", keywords=["one"]).usage
    audio_tokens = int(np.ceil(len(clip_pcm("quick_brown_fox")) / 16_000 * 50))
    assert usage.to_dict() == {
        "type": "tokens",
        "input_tokens": 4 + audio_tokens,
        "output_tokens": 4,
        "total_tokens": 8 + audio_tokens,
        "input_token_details": {"text_tokens": 4, "audio_tokens": audio_tokens},
    }


def test_transcription_usage_of_a_model_that_shows_no_tokens(api: Api) -> None:
    api.transcription.gives = set()
    assert transcribe(api, model="gpt-4o-transcribe").usage.output_tokens == 2


@pytest.mark.parametrize("model", ["whisper-1", "whisper-base"])
def test_transcription_usage_in_seconds(api: Api, model: str) -> None:
    assert transcribe(api, model=model).usage.to_dict() == {"type": "duration", "seconds": 3}  # rounded up


def test_transcription_of_silence(api: Api) -> None:
    answer = transcribe(api, file=wav_of(np.zeros(32_000, np.float32)))
    assert (answer.text, answer.usage.seconds) == ("", 2)
    assert api.transcription.calls == []


def test_transcription_unknown_fields(api: Api) -> None:
    assert transcribe(api, extra_body={"vad_filter": "true", "hotwords[]": "a"}).text == "some words"


def test_transcription_async(api: Api, long_recording: bytes) -> None:
    async def work(client: openai.AsyncOpenAI) -> tuple[str, list[str]]:
        whole = await client.audio.transcriptions.create(model="whisper-1", file=long_recording)
        stream = await client.audio.transcriptions.create(model="whisper-1", file=long_recording, stream=True)
        return whole.text, [event.type async for event in stream]

    text, types = run_async(api, work)
    assert text == "some words some words"
    assert types == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


# Transcriptions: the stream


def test_transcription_stream(api: Api, long_recording: bytes) -> None:
    """The first words are here before the second window is worked on; the deltas joined are the whole text."""
    api.transcription.gate.shut()
    deltas: list[str] = []
    for event in transcribe(api, file=long_recording, stream=True):
        if isinstance(event, TranscriptionTextDeltaEvent):
            assert len(api.transcription.calls) == len(deltas) + 1
            assert set(event.to_dict()) == {"type", "delta"}
            deltas.append(event.delta)
            api.transcription.gate.open()
        else:
            done = event
    assert deltas == ["some words", " some words"]
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == "".join(deltas)
    assert done.type == "transcript.text.done"


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
def test_transcription_stream_usage(api: Api, long_recording: bytes, model: str) -> None:
    """In tokens for every model: the events have no other form."""
    *_, done = transcribe(api, model=model, file=long_recording, stream=True, prompt="two words")
    audio_tokens = int(np.ceil((len(long_recording) - 44) / 2 / 16_000 * 50))
    assert done.usage.to_dict() == {
        "type": "tokens",
        "input_tokens": 2 + audio_tokens,
        "output_tokens": 8,
        "total_tokens": 10 + audio_tokens,
        "input_token_details": {"text_tokens": 2, "audio_tokens": audio_tokens},
    }


def test_transcription_stream_logprobs(api: Api, long_recording: bytes) -> None:
    *deltas, done = transcribe(api, file=long_recording, stream=True, include=["logprobs"])
    for delta in deltas:
        assert [each.token for each in delta.logprobs] == [" some", " words"]
        assert {each.logprob for each in delta.logprobs} == {-0.25}
        assert [bytes(each.bytes) for each in delta.logprobs] == [b" some", b" words"]
    assert [each.token for each in done.logprobs] == [" some", " words"] * 2
    *deltas, done = transcribe(api, file=long_recording, stream=True)
    assert {each.logprobs for each in (*deltas, done)} == {None}


def test_transcription_stream_on_the_wire(api: Api) -> None:
    """`data:` lines without `event:`, and [DONE] at the end."""
    answer = post_form(api, ("stream", "true"))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert re.fullmatch(r"(data: \{[^\n]+\}\n\n)+data: \[DONE\]\n\n", answer.text)


def test_transcription_stream_with_text(api: Api) -> None:
    *_, done = transcribe(api, stream=True, response_format="text")
    assert done.text == "some words"


@pytest.mark.parametrize("response_format", ["srt", "vtt", "verbose_json"])
def test_transcription_stream_needs_json_or_text(api: Api, response_format: str) -> None:
    assert_bad_request(
        lambda: transcribe(api, stream=True, response_format=response_format), "invalid_request", "stream"
    )


def test_transcription_stream_false(api: Api) -> None:
    assert transcribe(api, stream=False).text == "some words"


def test_transcription_stream_of_silence(api: Api) -> None:
    (done,) = transcribe(api, file=wav_of(np.zeros(32_000, np.float32)), stream=True)
    assert (done.type, done.text) == ("transcript.text.done", "")


def test_transcription_that_fails_at_once_has_a_real_status(api: Api) -> None:
    api.transcription.failure = RuntimeError("the engine's own words")
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as failed:
            transcribe(api, stream=stream)
        assert_openai_error(failed.value, "internal_error", None)
        assert "own words" not in failed.value.message


def test_transcription_error_in_the_stream(api: Api, long_recording: bytes) -> None:
    api.transcription.failure, api.transcription.fail_at_call = RuntimeError("the engine's own words"), 1
    events: list[Any] = []
    with pytest.raises(openai.APIError) as failed:
        events.extend(transcribe(api, file=long_recording, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"]
    assert_openai_error(failed.value, "internal_error", None)
    assert "own words" not in failed.value.message


# Translations


@pytest.mark.parametrize("model", ["whisper-1", "whisper-base"])
def test_translation_model(api: Api, model: str) -> None:
    assert translate(api, model=model).text == "some words"
    assert options_of(api).task == "translate"


def test_translation_file_that_is_no_audio(api: Api) -> None:
    assert_bad_request(lambda: translate(api, file=b"this is text"), "invalid_audio", "file")


def test_translation_prompt(api: Api) -> None:
    translate(api, prompt="Names: Ada.")
    assert options_of(api).prompt == "Names: Ada."


def test_translation_temperature(api: Api) -> None:
    translate(api, temperature=0.4)
    assert options_of(api).temperature == 0.4
    assert_bad_request(lambda: translate(api, temperature=-1), "invalid_request", "temperature")


def test_translation_json(api: Api) -> None:
    assert translate(api).to_dict() == translate(api, response_format="json").to_dict() == {"text": "some words"}


def test_translation_text(api: Api) -> None:
    assert translate(api, response_format="text") == "some words\n"


def test_translation_srt(api: Api) -> None:
    assert re.fullmatch(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nsome words\n", translate(api, response_format="srt"))


def test_translation_vtt(api: Api) -> None:
    assert re.fullmatch(
        r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\nsome words\n", translate(api, response_format="vtt")
    )


def test_translation_verbose_json(api: Api, long_recording: bytes) -> None:
    """The language is that of the answer, whatever was spoken."""
    api.transcription.probabilities = {"de": 0.9}
    answer = translate(api, file=long_recording, response_format="verbose_json")
    assert (answer.language, answer.text) == ("english", "some words some words")
    assert answer.duration == pytest.approx((len(long_recording) - 44) / 2 / 16_000)
    assert [set(segment.to_dict()) for segment in answer.segments] == [SEGMENT_FIELDS] * 2


def test_translation_formats_that_there_are_not(api: Api) -> None:
    for response_format in ("diarized_json", "docx"):
        answer = post_form(api, ("response_format", response_format), path="translations")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_format")


def test_translation_with_a_model_that_can_not(api: Api) -> None:
    api.transcription.translates = False
    with pytest.raises(openai.BadRequestError, match="can't translate") as refused:
        translate(api)
    assert_openai_error(refused.value, "invalid_request", "model")
    assert api.transcription.calls == []


def test_translation_async(api: Api) -> None:
    async def work(client: openai.AsyncOpenAI) -> str:
        answer = await client.audio.translations.create(model="whisper-1", file=clip("quick_brown_fox"))
        return answer.text

    assert run_async(api, work) == "some words"


# Models and voices


def test_models_list(api: Api) -> None:
    models = {model.id: model for model in api.client.models.list()}
    assert {"kokoro-82m", "whisper-base", *OPENAI_SPEECH_MODELS, *OPENAI_TRANSCRIPTION_MODELS} <= set(models)
    for model in models.values():
        assert set(model.to_dict()) == {"id", "object", "created", "owned_by"}
        assert model.object == "model"
    assert models["tts-1"].owned_by == "openai-alias"


def test_models_retrieve(api: Api) -> None:
    assert api.client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as missing:
        api.client.models.retrieve("nope")
    assert_openai_error(missing.value, "model_not_found", "model")


def test_models_with_a_slash(tmp_path: Path) -> None:
    """The client percent-encodes it."""
    name = "mlx-community/Kokoro-82M-bf16"
    app = fake_app(settings_in(tmp_path, tts_model=name), GatedSpeech(), GatedTranscription())
    with running(app) as url, strict_client(url) as client:
        assert client.models.retrieve(name).id == name
        with pytest.raises(openai.PermissionDeniedError):
            client.models.delete(name)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("someone/else")


def test_models_delete(api: Api) -> None:
    for name in ("kokoro-82m", "whisper-1"):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            api.client.models.delete(name)
        assert_openai_error(refused.value, None, "model")
    with pytest.raises(openai.NotFoundError) as missing:
        api.client.models.delete("nope")
    assert_openai_error(missing.value, "model_not_found", "model")


def test_models_async(api: Api) -> None:
    async def work(client: openai.AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert "kokoro-82m" in run_async(api, work)


def test_voices_list(api: Api) -> None:
    answer = api.client.get("/audio/voices", cast_to=object)
    assert isinstance(answer, dict)
    assert set(answer) == {"object", "data", "voices"}
    assert answer["object"] == "list"
    assert answer["data"] == answer["voices"]
    for voice in answer["data"]:
        assert set(voice) == {"id", "name", "language", "gender", "model", "description", "aliases"}
        assert speak(api, voice=voice["id"])


def test_voices_of_a_model(api: Api) -> None:
    by_default, by_name = (
        api.client.get("/audio/voices", cast_to=object, options={"params": query})
        for query in ({}, {"model": "kokoro-82m"})
    )
    assert by_default == by_name
    with pytest.raises(openai.NotFoundError):
        api.client.get("/audio/voices", cast_to=object, options={"params": {"model": "nope"}})


# Errors and headers


@pytest.mark.parametrize(
    ("call", "error", "code", "param"),
    [
        (lambda api: speak(api, voice="aloy"), openai.BadRequestError, "invalid_voice", "voice"),
        (lambda api: speak(api, model="nope"), openai.NotFoundError, "model_not_found", "model"),
        (lambda api: speak(api, model="whisper-1"), openai.BadRequestError, "invalid_request", "model"),
        (lambda api: transcribe(api, model="nope"), openai.NotFoundError, "model_not_found", "model"),
        (lambda api: transcribe(api, model="tts-1"), openai.BadRequestError, "invalid_request", "model"),
        (lambda api: transcribe(api, response_format="x"), openai.BadRequestError, "invalid_format", "response_format"),
        (lambda api: translate(api, model="nope"), openai.NotFoundError, "model_not_found", "model"),
        (lambda api: api.client.models.delete("tts-1"), openai.PermissionDeniedError, None, "model"),
        (lambda api: api.client.get("/nothing", cast_to=object), openai.NotFoundError, "not_found", None),
    ],
)
def test_typed_errors(
    api: Api, call: Callable[[Api], Any], error: type[openai.APIStatusError], code: str | None, param: str | None
) -> None:
    with pytest.raises(error) as raised:
        call(api)
    assert type(raised.value) is error
    assert_openai_error(raised.value, code, param)


def test_wrong_methods_are_405(api: Api) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        api.client.get("/audio/speech", cast_to=object)
    assert refused.value.status_code == 405
    assert_openai_error(refused.value, "method_not_allowed", None)


def test_too_large_uploads_are_413(tmp_path: Path) -> None:
    app = fake_app(settings_in(tmp_path, max_upload_mb=1), GatedSpeech(), GatedTranscription())
    with running(app) as url, strict_client(url) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.audio.transcriptions.create(model="whisper-1", file=b"\0" * (1024 * 1024 + 1))
        assert refused.value.status_code == 413
        assert_openai_error(refused.value, "payload_too_large", "file")


def test_too_long_audio_is_refused(tmp_path: Path) -> None:
    app = fake_app(settings_in(tmp_path, max_audio_seconds=1), GatedSpeech(), GatedTranscription())
    with running(app) as url, strict_client(url) as client:
        assert_bad_request(
            lambda: client.audio.transcriptions.create(model="whisper-1", file=clip("quick_brown_fox")),
            "invalid_audio",
            "file",
        )


def test_a_model_that_failed_to_load_is_503(tmp_path: Path) -> None:
    def failing(*_: object) -> FakeSpeech:
        raise OSError("the library's own words")

    settings = settings_in(tmp_path)
    pool = ModelPool(settings, ModelCatalog(settings), failing, lambda *_: GatedTranscription())
    with running(create_app(settings, pool), wait_for="/health") as url, strict_client(url) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")
        assert refused.value.status_code == 503
        assert "own words" not in refused.value.message
        assert_openai_error(refused.value, "model_not_ready", "model")


class LatePool(ModelPool):
    """The first request finds its model still loading."""

    asked = 0

    async def speech(self, name: str) -> TtsEngine:
        self.asked += 1
        if self.asked == 1:
            raise ModelNotReady("still loading", param="model", headers={"Retry-After": "1"})
        return await super().speech(name)


def test_the_client_comes_again_after_a_503(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    pool = LatePool(settings, ModelCatalog(settings), lambda *_: GatedSpeech(), lambda *_: GatedTranscription())
    with running(create_app(settings, pool)) as url:
        with strict_client(url) as client, pytest.raises(openai.InternalServerError) as refused:
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")
        assert refused.value.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
        assert_openai_error(refused.value, "model_not_ready", "model")
        pool.asked = 0
        with strict_client(url, max_retries=1) as client:
            assert client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.").content
        assert pool.asked == 2


def test_every_response_has_a_request_id(api: Api) -> None:
    headers = {"X-Request-ID": "mine-1"}
    speech = api.client.audio.speech.create(model="tts-1", voice="alloy", input="Hi.", extra_headers=headers)
    assert speech.response.headers["x-request-id"] == "mine-1"
    for path in ("/health", "/v1/models", "/v1/audio/voices", "/v1/nothing", "/docs"):
        assert re.fullmatch(r"[0-9a-f]{32}", httpx.get(api.url + path).headers["x-request-id"])
    answer = api.client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=clip("hello_world"))
    assert answer.request_id
    with api.client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hi.", stream_format="sse"
    ) as events:
        assert events.request_id


@pytest.mark.parametrize("response_format", CONTENT_TYPES)
def test_speech_has_a_file_name(api: Api, response_format: Any) -> None:
    for stream in (True, False):
        answer = api.client.audio.speech.create(
            model="tts-1",
            voice="alloy",
            input="Hello.",
            response_format=response_format,
            extra_body={"stream": stream},
        )
        expected = f'attachment; filename="speech.{response_format}"'
        assert answer.response.headers["content-disposition"] == expected


def timings(header: str) -> dict[str, float]:
    """The parts of a Server-Timing header, in milliseconds."""
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", header)}


def test_speech_tells_what_it_took(api: Api) -> None:
    for body in ({}, {"stream": False}, {"stream_format": "sse"}):
        answer = api.client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", extra_body=body)
        took = timings(answer.response.headers["server-timing"])
        assert set(took) == {"queue", "model", "encode"}
        is_whole = body == {"stream": False}
        assert ("x-generation-time" in answer.response.headers) == is_whole
        if is_whole:
            assert float(answer.response.headers["x-generation-time"]) >= 0


def test_transcription_tells_what_it_took(api: Api) -> None:
    raw = api.client.audio.transcriptions.with_raw_response
    whole = raw.create(model="whisper-1", file=clip("hello_world"))
    assert set(timings(whole.headers["server-timing"])) == {"decode", "queue", "model"}
    assert float(whole.headers["x-generation-time"]) > 0
    streamed = raw.create(model="whisper-1", file=clip("hello_world"), stream=True)
    assert set(timings(streamed.headers["server-timing"])) == {"decode", "queue", "model"}
    assert "x-generation-time" not in streamed.headers


def test_translation_tells_what_it_took(api: Api) -> None:
    answer = api.client.audio.translations.with_raw_response.create(model="whisper-1", file=clip("hello_world"))
    assert set(timings(answer.headers["server-timing"])) == {"decode", "queue", "model"}
    assert float(answer.headers["x-generation-time"]) > 0


def test_cors_is_off(api: Api) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.get(f"{api.url}/v1/models", headers=headers),
        httpx.options(f"{api.url}/v1/audio/speech", headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_cors_for_the_origins_of_the_setting(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, cors_origins=("http://localhost:3000",))
    with running(fake_app(settings, GatedSpeech(), GatedTranscription())) as url:
        ours, theirs = (
            httpx.options(f"{url}/v1/audio/speech", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
            for origin in ("http://localhost:3000", "http://example.com")
        )
        assert ours.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "access-control-allow-origin" not in theirs.headers
        shown = httpx.get(f"{url}/v1/models", headers={"Origin": "http://localhost:3000"}).headers
        assert "X-Request-ID" in shown["access-control-expose-headers"]


def test_what_is_not_there_yet_says_so(api: Api) -> None:
    """Custom voices, consents, and realtime sessions."""
    for path, status in {"/audio/voices": 405, "/audio/voice_consents": 404, "/realtime/sessions": 404}.items():
        with pytest.raises(openai.APIStatusError) as refused:
            api.client.post(path, body={}, cast_to=object)
        assert refused.value.status_code == status
        assert_openai_error(refused.value, "method_not_allowed" if status == 405 else "not_found", None)
