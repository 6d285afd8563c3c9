"""The HTTP routes over fake engines: what goes in, what comes out, and every refusal in OpenAI's form."""

import logging
import re

import numpy as np
import pytest
from starlette.testclient import TestClient

from config import Settings
from errors import SpeechdError
from middleware import WithRequestId
from model_catalog import ModelCatalog
from model_pool import ModelPool
from openai_api import OPENAI_SPEECH_MODELS, OPENAI_TRANSCRIPTION_MODELS
from server import create_app
from tests.conftest import decoded_seconds
from tests.fakes import SAMPLE_RATE, SAMPLES_PER_CHARACTER, FakeSpeech, FakeTranscription

SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def speech_body(**fields: object) -> dict[str, object]:
    return {"model": "tts-1", "input": "Hello there.", "voice": "alloy", **fields}


def assert_refused(response, status: int, code: str, param: str | None = None) -> str:  # type: ignore[no-untyped-def]
    """An error in OpenAI's form; returns its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert response.headers["x-request-id"]
    return str(error["message"])


# Speech


@pytest.mark.parametrize("response_format", CONTENT_TYPES)
def test_speech_in_every_format(client: TestClient, response_format: str) -> None:
    response = client.post(SPEECH, json=speech_body(response_format=response_format))
    assert response.status_code == 200
    assert response.headers["content-type"] == CONTENT_TYPES[response_format]
    assert response.headers["content-disposition"] == f'attachment; filename="speech.{response_format}"'
    expected = 10 * SAMPLES_PER_CHARACTER / SAMPLE_RATE
    if response_format == "pcm":
        assert len(response.content) == 2 * 10 * SAMPLES_PER_CHARACTER
    else:
        assert decoded_seconds(response.content) == pytest.approx(expected, abs=0.1)


def test_speech_without_a_format_is_mp3(client: TestClient) -> None:
    assert client.post(SPEECH, json=speech_body()).headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("model", [*OPENAI_SPEECH_MODELS, "kokoro-82m"])
def test_every_name_of_the_speech_model(client: TestClient, model: str) -> None:
    assert client.post(SPEECH, json=speech_body(model=model)).status_code == 200


@pytest.mark.parametrize(
    ("voice", "spoken_with"),
    [
        ("alloy", "af_alloy"),
        ("marin", "af_heart"),
        ("bm_george", "bm_george"),
        ({"id": "bm_george"}, "bm_george"),
        (None, "af_heart"),
    ],
)
def test_voices_by_every_kind_of_name(
    client: TestClient, fake_speech: FakeSpeech, voice: object, spoken_with: str
) -> None:
    assert client.post(SPEECH, json=speech_body(voice=voice)).status_code == 200
    assert fake_speech.calls[-1][1].voice == spoken_with


@pytest.mark.parametrize(("speed", "own_speed"), [(0.25, 0.5), (0.5, 0.5), (1, 1.0), (1.5, 1.5), (4.0, 2.0)])
def test_speed_beyond_what_the_model_does_is_stretched(
    client: TestClient, fake_speech: FakeSpeech, speed: float, own_speed: float
) -> None:
    response = client.post(SPEECH, json=speech_body(input="a" * 40, speed=speed, response_format="pcm"))
    assert fake_speech.calls[-1][1].speed == own_speed
    seconds = len(response.content) / 2 / 24_000
    assert seconds == pytest.approx(40 * SAMPLES_PER_CHARACTER / SAMPLE_RATE / speed, rel=0.1)


def test_unknown_fields_are_tolerated(client: TestClient) -> None:
    assert client.post(SPEECH, json=speech_body(lang_code="a", whatever={"x": 1})).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": ""}, "invalid_input", "input"),
        ({"input": " \n\t "}, "invalid_input", "input"),
        ({"input": "?!"}, "invalid_input", "input"),
        ({"input": 5}, "invalid_input", "input"),
        ({"input": "x" * 4097}, "input_too_long", "input"),
        ({"voice": "aloy"}, "invalid_voice", "voice"),
        ({"voice": "../../etc/passwd"}, "invalid_voice", "voice"),
        ({"voice": 3}, "invalid_voice", "voice"),
        ({"voice": {"id": 3}}, "invalid_voice", "voice"),
        ({"response_format": "mp4"}, "invalid_format", "response_format"),
        ({"speed": 0.2}, "invalid_speed", "speed"),
        ({"speed": 4.1}, "invalid_speed", "speed"),
        ({"speed": "fast"}, "invalid_speed", "speed"),
        ({"speed": "1.0"}, "invalid_speed", "speed"),
        ({"model": 7}, "invalid_request", "model"),
        ({"model": "whisper-1"}, "invalid_request", "model"),
        ({"model": "whisper-base"}, "invalid_request", "model"),
    ],
)
def test_bad_speech_requests(client: TestClient, fields: dict[str, object], code: str, param: str) -> None:
    message = assert_refused(client.post(SPEECH, json=speech_body(**fields)), 400, code, param)
    assert message[-1] != "\n"


def test_an_unknown_voice_lists_near_names(client: TestClient) -> None:
    message = assert_refused(client.post(SPEECH, json=speech_body(voice="aloy")), 400, "invalid_voice", "voice")
    assert "alloy" in message


def test_an_unknown_model(client: TestClient) -> None:
    for model in ("gpt-5", "../secret", "someone/not-here"):
        assert_refused(client.post(SPEECH, json=speech_body(model=model)), 404, "model_not_found", "model")


@pytest.mark.parametrize("field", ["model", "input"])
def test_a_missing_field_is_named(client: TestClient, field: str) -> None:
    body = speech_body()
    del body[field]
    code = {"input": "invalid_input"}.get(field, "invalid_request")
    assert_refused(client.post(SPEECH, json=body), 400, code, field)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff\xfe"])
def test_bodies_that_are_no_request(client: TestClient, body: bytes) -> None:
    response = client.post(SPEECH, content=body, headers={"content-type": "application/json"})
    assert_refused(response, 400, "invalid_request")


def test_the_body_streams_and_begins_before_the_text_is_spoken(client: TestClient, fake_speech: FakeSpeech) -> None:
    text = "This is one sentence of the text. " * 40
    with client.stream("POST", SPEECH, json=speech_body(input=text, response_format="pcm")) as response:
        total = sum(len(chunk) for chunk in response.iter_bytes())
    assert "content-length" not in response.headers
    assert len(fake_speech.calls) > 3
    assert total == 2 * SAMPLES_PER_CHARACTER * sum(character.isalnum() for character in text)


def test_an_engine_that_fails_at_once_is_a_500(client: TestClient, fake_speech: FakeSpeech) -> None:
    fake_speech.failure = RuntimeError("secret of the engine")
    message = assert_refused(client.post(SPEECH, json=speech_body()), 500, "internal_error")
    assert "secret" not in message
    fake_speech.failure = None
    assert client.post(SPEECH, json=speech_body()).status_code == 200


def test_an_engine_that_makes_no_numbers_is_a_500(client: TestClient, fake_speech: FakeSpeech) -> None:
    fake_speech.chunk = np.full(1_000, np.nan, dtype=np.float32)
    assert_refused(client.post(SPEECH, json=speech_body()), 500, "internal_error")


# Transcriptions


def transcribe(client: TestClient, data: bytes, **fields: str):  # type: ignore[no-untyped-def]
    files = {"file": ("upload", data, "application/octet-stream")}
    return client.post(TRANSCRIPTIONS, files=files, data={"model": "whisper-1", **fields})


def test_transcription_as_json(client: TestClient, spoken_clip: bytes) -> None:
    response = transcribe(client, spoken_clip)
    assert response.status_code == 200
    answer = response.json()
    assert answer["text"] == "some words"
    assert answer["languages"] == [{"code": "en"}]
    assert answer["usage"]["type"] == "duration"
    assert answer["usage"]["seconds"] >= 1
    assert float(response.headers["x-generation-time"]) >= 0


def test_transcription_as_text(client: TestClient, spoken_clip: bytes) -> None:
    response = transcribe(client, spoken_clip, response_format="text")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text == "some words\n"


@pytest.mark.parametrize("model", [*OPENAI_TRANSCRIPTION_MODELS, "whisper-base"])
def test_every_name_of_the_transcription_model(client: TestClient, spoken_clip: bytes, model: str) -> None:
    assert transcribe(client, spoken_clip, model=model).status_code == 200


def test_options_reach_the_model(client: TestClient, spoken_clip: bytes, fake_transcription: FakeTranscription) -> None:
    transcribe(client, spoken_clip, language="DE", prompt="Namen: Ada", temperature="0.4")
    options = fake_transcription.calls[-1][1]
    assert (options.language, options.prompt, options.temperature) == ("de", "Namen: Ada", 0.4)


def test_silence_gives_an_empty_text_and_asks_no_model(
    client: TestClient, fake_transcription: FakeTranscription
) -> None:
    silence = client.post(SPEECH, json=speech_body(response_format="wav")).content[:44] + b"\0" * 48_000
    assert transcribe(client, silence).json()["text"] == ""
    assert fake_transcription.calls == []


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, this is text", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", bytes(range(256)) * 40],
    ids=["empty", "text", "playlist", "bytes"],
)
def test_uploads_that_are_no_audio(client: TestClient, data: bytes) -> None:
    assert_refused(transcribe(client, data), 400, "invalid_audio", "file")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": "docx"}, "invalid_format", "response_format"),
        ({"temperature": "2"}, "invalid_request", "temperature"),
        ({"temperature": "warm"}, "invalid_request", "temperature"),
        ({"language": "klingon"}, "invalid_language", "language"),
        ({"model": "tts-1"}, "invalid_request", "model"),
    ],
)
def test_bad_transcription_fields(
    client: TestClient, spoken_clip: bytes, fields: dict[str, str], code: str, param: str
) -> None:
    assert_refused(transcribe(client, spoken_clip, **fields), 400, code, param)


def test_an_unknown_transcription_model(client: TestClient, spoken_clip: bytes) -> None:
    assert_refused(transcribe(client, spoken_clip, model="nope"), 404, "model_not_found", "model")


def test_missing_parts_of_the_form(client: TestClient, spoken_clip: bytes) -> None:
    response = client.post(TRANSCRIPTIONS, data={"model": "whisper-1"})
    assert_refused(response, 400, "invalid_audio", "file")
    response = client.post(TRANSCRIPTIONS, files={"file": ("a.wav", spoken_clip)})
    assert_refused(response, 400, "invalid_request", "model")
    response = client.post(TRANSCRIPTIONS, data={"model": "whisper-1", "file": "a string"})
    assert_refused(response, 400, "invalid_audio", "file")


def test_a_failing_transcription_model_is_a_500(
    client: TestClient, spoken_clip: bytes, fake_transcription: FakeTranscription
) -> None:
    fake_transcription.failure = RuntimeError("secret of the engine")
    assert "secret" not in assert_refused(transcribe(client, spoken_clip), 500, "internal_error")


# Models, voices, health


def test_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert {"kokoro-82m", "whisper-base", "whisper-tiny.en", "tts-1", "whisper-1"} <= set(names)
    assert len(names) == len(set(names))
    for model in listed["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert client.get(f"/v1/models/{model['id']}").json() == model


@pytest.mark.parametrize("name", ["nope", "someone/else", "someone%2Felse", "../x", ""])
def test_unknown_models(client: TestClient, name: str) -> None:
    response = client.get(f"/v1/models/{name}")
    assert response.status_code in (200, 404)
    if name:
        assert response.status_code == 404
        assert response.json()["error"]["code"] in ("model_not_found", "not_found")


def test_a_model_named_by_its_hub_id_is_found_with_an_encoded_slash(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = Settings(_env_file=None, cache_dir=tmp_path, tts_model="mlx-community/Kokoro-82M-bf16")
    pool = ModelPool(settings, ModelCatalog(settings), lambda *_: FakeSpeech(), lambda *_: FakeTranscription())
    with TestClient(create_app(settings, pool)) as client:
        for path in ("mlx-community/Kokoro-82M-bf16", "mlx-community%2FKokoro-82M-bf16"):
            assert client.get(f"/v1/models/{path}").json()["id"] == "mlx-community/Kokoro-82M-bf16"


def test_voices_come_under_both_names_with_their_aliases(client: TestClient) -> None:
    answer = client.get("/v1/audio/voices").json()
    assert answer["object"] == "list"
    assert answer["data"] == answer["voices"]
    by_id = {voice["id"]: voice for voice in answer["data"]}
    assert by_id["af_alloy"]["aliases"] == ["alloy"]
    assert by_id["alloy"]["language"] == "en-us"
    assert by_id["bm_george"]["gender"] == "male"


def test_voices_of_an_unknown_model(client: TestClient) -> None:
    assert_refused(client.get("/v1/audio/voices", params={"model": "nope"}), 404, "model_not_found", "model")


def test_health_and_readiness(client: TestClient) -> None:
    assert client.post(SPEECH, json=speech_body()).status_code == 200
    assert client.get("/ready").json() == {"ready": True, "detail": "ready"}
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert set(health) == {
        "status", "models", "audio", "voices", "queue", "uptime_seconds", "peak_memory_bytes", "version",
    }  # fmt: skip
    speech = next(model for model in health["models"] if model["kind"] == "speech")
    assert set(speech) == {
        "id", "kind", "backend", "device", "loaded", "sample_rate", "memory_bytes", "error",
    }  # fmt: skip
    assert (speech["loaded"], speech["sample_rate"]) == (True, SAMPLE_RATE)
    assert health["voices"] == 3
    assert "ffmpeg" in health["audio"]
    assert health["peak_memory_bytes"] > 1_000_000


def test_a_model_that_fails_to_load(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    def failing(*_: object) -> FakeSpeech:
        raise OSError("secret of the library")

    pool = ModelPool(settings, ModelCatalog(settings), failing, lambda *_: FakeTranscription())
    with TestClient(create_app(settings, pool)) as client:
        message = assert_refused(client.post(SPEECH, json=speech_body()), 503, "model_not_ready", "model")
        assert "secret" not in message
        assert "secret of the library" in caplog.text
        assert "kokoro-82m failed to load" in caplog.text
        assert client.get("/health").json()["status"] == "degraded"
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert "kokoro-82m failed to load" in ready.json()["detail"]


# Everything else


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert_refused(client.get("/v1/nothing"), 404, "not_found")
    response = client.get(SPEECH)
    assert_refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_an_upload_over_the_limit(
    fake_speech: FakeSpeech, fake_transcription: FakeTranscription, settings: Settings
) -> None:
    small = settings.model_copy(update={"max_upload_mb": 1})
    pool = ModelPool(small, ModelCatalog(small), lambda *_: fake_speech, lambda *_: fake_transcription)
    too_much = b"x" * (1024 * 1024 + 1)
    with TestClient(create_app(small, pool)) as client:
        assert_refused(transcribe(client, too_much), 413, "payload_too_large", "file")
        # The same without a declared length: counted while it arrives.
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + too_much + b"\r\n--x--\r\n"
        chunks = (form[start : start + 65536] for start in range(0, len(form), 65536))
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert_refused(client.post(TRANSCRIPTIONS, content=chunks, headers=headers), 413, "payload_too_large", "file")
        assert_refused(
            client.post(SPEECH, content=too_much, headers={"content-type": "application/json"}),
            413,
            "payload_too_large",
            "file",
        )


def test_the_request_id_is_kept_if_it_is_sane(client: TestClient) -> None:
    assert client.get("/health", headers={"X-Request-ID": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    for insane in ("bad id with spaces", "x" * 129, "a\tb", ""):
        own = client.get("/health", headers={"X-Request-ID": insane}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", own)


def test_every_log_line_of_a_request_carries_its_id(
    client: TestClient, fake_speech: FakeSpeech, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(WithRequestId())
    fake_speech.failure = RuntimeError("logged on the thread of the engine")
    with caplog.at_level(logging.INFO):
        client.post(SPEECH, json=speech_body(), headers={"X-Request-ID": "mine"})
    lines = {record.name: record.request for record in caplog.records if record.name.startswith("speechd")}  # type: ignore[attr-defined]  # set by the filter
    assert lines == {"speechd.inference": " [mine]", "speechd.access": " [mine]"}
    assert "POST /v1/audio/speech 500" in caplog.text


def test_a_bug_answers_in_openais_form_with_its_request_id(settings: Settings) -> None:
    pool = ModelPool(settings, ModelCatalog(settings), lambda *_: FakeSpeech(), lambda *_: FakeTranscription())
    app = create_app(settings, pool)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert "secret" not in assert_refused(client.get("/bug"), 500, "internal_error")


def test_every_error_has_a_status_a_type_and_a_code() -> None:
    def tree(cls: type[SpeechdError]) -> list[type[SpeechdError]]:
        return [cls, *(each for sub in cls.__subclasses__() for each in tree(sub))]

    for error in tree(SpeechdError):
        assert 400 <= error.status < 600
        assert error.type in ("invalid_request_error", "authentication_error", "rate_limit_error", "server_error")
        assert error.code is None or re.fullmatch(r"[a-z_]+", error.code)


def test_openapi_describes_each_field_with_its_limits(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    speech = document["components"]["schemas"]["SpeechRequest"]["properties"]
    assert set(speech) == {
        "model", "input", "voice", "instructions", "response_format", "speed", "stream_format", "stream",
    }  # fmt: skip
    assert all(field.get("description") for field in speech.values())
    assert {"minimum": 0.25, "maximum": 4.0, "type": "number"} in speech["speed"]["anyOf"]
    assert {"maxLength": 4096, "type": "string"} in speech["instructions"]["anyOf"]
    assert speech["response_format"]["anyOf"][0]["enum"] == list(CONTENT_TYPES)
    for path, extra in ((TRANSCRIPTIONS, 10), ("/v1/audio/translations", 1)):
        body = document["paths"][path]["post"]["requestBody"]["content"]
        form = body["multipart/form-data"]["schema"]["properties"]
        assert form["file"]["format"] == "binary"
        assert (form["temperature"]["minimum"], form["temperature"]["maximum"]) == (0, 1)
        assert len(form) == len(("file", "model", "prompt", "temperature")) + extra
    form = document["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    for name in ("languages", "keywords", "timestamp_granularities", "include", "known_speaker_names"):
        assert f"{name}[]" in form["properties"]
    assert "$ref" not in str(form)
    assert client.get("/docs").status_code == 200
