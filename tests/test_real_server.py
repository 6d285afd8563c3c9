"""The real process with the real models, driven by the official client: what is said is what is heard."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import jiwer
import openai
import pytest

from audio_converter import FORMATS
from tests.conftest import clip, clip_text, decoded_seconds
from tests.server_process import ServerProcess, running_server

pytestmark = pytest.mark.real

BACKEND_PAIRS = {
    "cpu": {"tts_backend": "kokoro_onnx", "stt_backend": "faster_whisper"},
    "mlx": {"tts_backend": "mlx_audio", "stt_backend": "mlx_audio"},
}

MAX_WORD_ERROR_RATE = 0.1

# Varied in length, mood, sounds and punctuation; written so that Whisper has one way to spell each.
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Good morning! How are you feeling today?",
    "She sells sea shells by the sea shore.",
    "Please remember to close the window before you leave the office.",
    "I read the book last week, and now I want to read it again.",
    "Although it was raining heavily, the children kept playing in the garden until their mother called them inside.",
    "Doctor Smith said that the new medicine works better than the old one.",
    "Where did you put the keys to the kitchen door?",
    "The weather in London is often cold and wet in November.",
    "Thank you very much for your help; we really appreciate it.",
    "Music, art and science are all ways to understand the world.",
    "Nobody knows what happened, but everybody has an opinion.",
)

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Ways to write the same words that Whisper may choose.
SAME_WORDS = {r"-": " ", r"\bdr\b\.?": "doctor", r"\bseashells\b": "sea shells", r"\bseashore\b": "sea shore"} | {
    rf"\b{number}\b": word
    for number, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1
    )
}

normalise = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.SubstituteRegexes(SAME_WORDS),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


# What depends on the pair is tested with both; MLX on a CPU is slow, so the rest is tested with the other one.
with_the_cpu_pair = pytest.mark.parametrize("server", ["cpu"], indirect=True)


@pytest.fixture(scope="module", params=BACKEND_PAIRS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp(request.param)
    with running_server(folder, cache_dir=model_cache, **BACKEND_PAIRS[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def word_error_rate(said: list[str], heard: list[str]) -> float:
    return float(jiwer.wer(said, heard, reference_transform=normalise, hypothesis_transform=normalise))


def hear(client: openai.OpenAI, data: bytes) -> str:
    return client.audio.transcriptions.create(model="whisper-1", file=data).text


def seconds_of(data: bytes, name: str) -> float:
    if name == "pcm":
        return len(data) / 2 / 24_000
    return decoded_seconds(data)


def test_what_is_said_is_heard(client: openai.OpenAI) -> None:
    heard = []
    for sentence in SENTENCES:
        speech = client.audio.speech.create(model="tts-1", voice="alloy", input=sentence, response_format="wav")
        heard.append(hear(client, speech.content))
    assert word_error_rate(list(SENTENCES), heard) <= MAX_WORD_ERROR_RATE, heard


def test_recorded_speech_is_heard(client: openai.OpenAI) -> None:
    names = ["hello_world", "quick_brown_fox", "counting"]
    heard = [hear(client, clip(name)) for name in names]
    assert word_error_rate([clip_text(name) for name in names], heard) <= MAX_WORD_ERROR_RATE, heard


def test_all_six_formats_decode_to_the_same_duration(client: openai.OpenAI) -> None:
    text = "One sentence in six formats."
    seconds = {
        name: seconds_of(
            client.audio.speech.create(model="tts-1", voice="nova", input=text, response_format=name).content,  # type: ignore[arg-type]
            name,
        )
        for name in FORMATS
    }
    assert 1.0 < seconds["pcm"] < 5.0
    for name in FORMATS:
        # A lossy codec adds at most a frame or two of padding.
        assert seconds[name] == pytest.approx(seconds["pcm"], abs=0.1), name


@with_the_cpu_pair
def test_every_format_can_be_uploaded_again(client: openai.OpenAI) -> None:
    for name in FORMATS:
        if name == "pcm":
            continue  # raw samples carry no header: not an upload format
        speech = client.audio.speech.create(
            model="tts-1", voice="marin", input="The garden is full of flowers.", response_format=name  # type: ignore[arg-type]
        )  # fmt: skip
        assert "garden" in hear(client, speech.content).lower(), name


def test_speed_changes_the_duration(client: openai.OpenAI) -> None:
    def seconds(speed: float) -> float:
        speech = client.audio.speech.create(
            model="tts-1", voice="alloy", input="This sentence is spoken at several speeds.",
            response_format="pcm", speed=speed,
        )  # fmt: skip
        return seconds_of(speech.content, "pcm")

    normal = seconds(1.0)
    assert seconds(2.0) < 0.7 * normal
    assert seconds(0.5) > 1.5 * normal
    assert seconds(4.0) < 0.4 * normal


@with_the_cpu_pair
def test_plain_text_is_a_string_for_the_client(client: openai.OpenAI) -> None:
    text = client.audio.transcriptions.create(
        model="whisper-1", file=clip("quick_brown_fox"), response_format="text", language="en"
    )
    assert isinstance(text, str)
    assert "quick brown fox" in text.lower()


@with_the_cpu_pair
def test_the_clients_typed_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad_voice:
        client.audio.speech.create(model="tts-1", voice="aloy", input="Hello")
    assert (bad_voice.value.code, bad_voice.value.param) == ("invalid_voice", "voice")
    assert "alloy" in bad_voice.value.message
    assert bad_voice.value.request_id
    with pytest.raises(openai.NotFoundError) as no_model:
        client.audio.speech.create(model="nope", voice="alloy", input="Hello")
    assert no_model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as no_audio:
        client.audio.transcriptions.create(model="whisper-1", file=b"this is not audio")
    assert (no_audio.value.code, no_audio.value.param) == ("invalid_audio", "file")


@with_the_cpu_pair
def test_models_and_voices(client: openai.OpenAI, server: ServerProcess) -> None:
    names = [model.id for model in client.models.list()]
    assert {"kokoro-82m", "whisper-base", "whisper-tiny.en"} <= set(names)
    assert client.models.retrieve("kokoro-82m").id == "kokoro-82m"
    voices = httpx.get(f"{server.url}/v1/audio/voices").json()["voices"]
    assert sum(re.fullmatch(r"[a-z]{2}_\w+", voice["id"]) is not None for voice in voices) == 54


def test_a_second_model_is_loaded_when_it_is_asked_for(client: openai.OpenAI, server: ServerProcess) -> None:
    heard = client.audio.transcriptions.create(model="whisper-tiny.en", file=clip("quick_brown_fox"))
    assert "quick brown fox" in heard.text.lower()
    with pytest.raises(openai.BadRequestError) as other_language:
        client.audio.transcriptions.create(model="whisper-tiny.en", file=clip("quick_brown_fox"), language="fr")
    assert other_language.value.code == "invalid_language"


def test_health_tells_what_runs(server: ServerProcess, request: pytest.FixtureRequest) -> None:
    health = httpx.get(f"{server.url}/health").json()
    assert health["status"] == "ok"
    pair = BACKEND_PAIRS[request.node.callspec.params["server"]]
    assert {model["backend"] for model in health["models"]} == set(pair.values())
    assert all(model["loaded"] and model["memory_bytes"] > 10_000_000 for model in health["models"])
    assert health["voices"] == 54


# One sentence and one voice for each language of Kokoro beside English.
# The phonemes are the same for both engines (see test_both_engines_speak_the_same_sentence).
OTHER_LANGUAGES = {
    "es": ("ef_dora", "Buenos días, me gusta mucho viajar por el mundo.", ["buenos", "días", "viajar"]),
    "fr": ("ff_siwis", "Bonjour, je voudrais une tasse de café, s'il vous plaît.", ["bonjour", "café"]),
    "it": ("if_sara", "Buongiorno, vorrei un bicchiere di acqua fresca.", ["buongiorno", "acqua"]),
    "pt": ("pf_dora", "Bom dia, eu gosto muito de viajar pelo mundo.", ["dia", "viajar"]),
    "ja": ("jf_alpha", "今日はとても良い天気です。", ["天気"]),
    "zh": ("zf_xiaoxiao", "今天天气很好，我们去公园散步吧。", ["天"]),
    "hi": ("hf_alpha", "नमस्ते, आप कैसे हैं?", []),
}


@with_the_cpu_pair
@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_other_languages_are_spoken(client: openai.OpenAI, language: str) -> None:
    voice, text, words = OTHER_LANGUAGES[language]
    speech = client.audio.speech.create(model="tts-1", voice=voice, input=text, response_format="wav")
    assert seconds_of(speech.content, "wav") > 1.0
    heard = client.audio.transcriptions.create(model="whisper-1", file=speech.content, language=language).text
    assert heard
    for word in words:
        assert word in heard.lower()
