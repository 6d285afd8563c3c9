"""The contract where only real models can show that it holds: what is answered is true, not only well formed.

One process with the models of the CPU. The fields themselves stand in test_contract.py.
"""

import base64
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import openai
import pysubs2
import pytest

from tests.conftest import clip, clip_pcm, clip_text, decoded_seconds
from tests.server_process import ServerProcess, running_server
from tests.test_contract import SEGMENT_FIELDS, strict_client, wav_of

pytestmark = [
    pytest.mark.real,
    # The client marks translations as deprecated.
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

TEXT = "The garden is full of flowers. Where did you put the keys to the kitchen door? Nobody knows what happened."
LONGEST_WINDOW_SECONDS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("contract")
    with running_server(
        folder, cache_dir=model_cache, tts_backend="kokoro_onnx", stt_backend="faster_whisper"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with strict_client(server.url) as client:
        yield client


def say(client: openai.OpenAI, text: str) -> bytes:
    return client.audio.speech.create(model="tts-1", voice="af_heart", input=text, response_format="wav").content


def hear(client: openai.OpenAI, file: bytes, **fields: Any) -> Any:
    return client.audio.transcriptions.create(**{"model": "whisper-1", "file": file} | fields)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def spoken(client: openai.OpenAI) -> bytes:
    return say(client, TEXT)


@pytest.fixture(scope="module")
def long_recording() -> bytes:
    """The same clip again and again, for longer than one window."""
    pcm = clip_pcm("quick_brown_fox")
    copies = int(1.3 * LONGEST_WINDOW_SECONDS * 16_000 / len(pcm)) + 1
    return wav_of(np.tile(pcm, copies))


def test_segments_are_measured(client: openai.OpenAI, spoken: bytes) -> None:
    answer = hear(client, spoken, response_format="verbose_json")
    assert answer.language == "english"
    assert answer.duration == pytest.approx(decoded_seconds(spoken), abs=0.05)
    assert answer.usage.seconds in (int(answer.duration), int(answer.duration) + 1)
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text
    earlier = 0.0
    for number, segment in enumerate(answer.segments):
        assert set(segment.to_dict()) == SEGMENT_FIELDS
        assert segment.id == number
        assert earlier <= segment.start < segment.end <= answer.duration
        earlier = segment.end
        assert segment.seek <= 100 * segment.start + 1
        assert len(segment.tokens) > len(segment.text.split())
        assert segment.temperature in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        assert -1 < segment.avg_logprob < 0  # under -1 Whisper doubts its own words
        assert 0.3 < segment.compression_ratio < 2.4  # above 2.4 it repeats itself
        assert 0 <= segment.no_speech_prob < 0.6


def test_words_rise_and_lie_in_the_recording(client: openai.OpenAI, spoken: bytes) -> None:
    answer = hear(client, spoken, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert words_of(" ".join(word.word for word in answer.words)) == words_of(answer.text)
    earlier = 0.0
    for word in answer.words:
        assert earlier <= word.start <= word.end <= answer.duration
        earlier = word.end
    assert sum(word.end > word.start for word in answer.words) > 0.9 * len(answer.words)
    last = answer.words[-1].end
    assert last > 0.8 * answer.duration  # they are spread over the whole


def test_words_of_a_later_window(client: openai.OpenAI, long_recording: bytes) -> None:
    answer = hear(client, long_recording, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert answer.duration > LONGEST_WINDOW_SECONDS
    times = [time for word in answer.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert LONGEST_WINDOW_SECONDS < times[-1] <= answer.duration
    assert answer.segments[-1].start > LONGEST_WINDOW_SECONDS / 2


def test_logprobs_are_of_the_tokens_of_the_text(client: openai.OpenAI, spoken: bytes) -> None:
    answer = hear(client, spoken, model="gpt-4o-transcribe", include=["logprobs"])
    joined = b"".join(bytes(map(int, each.bytes)) for each in answer.logprobs).decode()
    assert joined.strip() == answer.text
    values = [each.logprob for each in answer.logprobs]
    assert all(value <= 0 for value in values)
    assert len(set(values)) > len(values) / 2  # measured one by one
    assert sum(values) / len(values) > -1


def test_logprobs_of_letters_in_several_bytes(client: openai.OpenAI) -> None:
    """A token may hold a part of a letter; the bytes joined are the text all the same."""
    answer = hear(client, foreign_clip("ja", "konnichiwa_sekai"), language="ja", include=["logprobs"])
    joined = b"".join(bytes(map(int, each.bytes)) for each in answer.logprobs).decode()
    assert joined.strip() == answer.text
    assert not answer.text.isascii()


def test_token_usage_counts(client: openai.OpenAI, spoken: bytes) -> None:
    plain, prompted = (
        hear(client, spoken, model="gpt-4o-transcribe", prompt=prompt).usage for prompt in ("", "A short prompt.")
    )
    assert plain.input_token_details.text_tokens == 0
    assert 3 <= prompted.input_token_details.text_tokens <= 6
    assert plain.input_token_details.audio_tokens == pytest.approx(50 * decoded_seconds(spoken), abs=2)
    assert plain.output_tokens >= len(TEXT.split())
    for usage in (plain, prompted):
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def foreign_clip(language: str, name: str) -> bytes:
    return (resources.files("pytest_audioeval") / "samples" / "audio" / language / f"{name}.wav").read_bytes()


@pytest.mark.parametrize(
    ("language", "name", "english"), [("fr", "bonjour_monde", "world"), ("ja", "konnichiwa_sekai", "world")]
)
def test_translation_into_english(client: openai.OpenAI, language: str, name: str, english: str) -> None:
    file = foreign_clip(language, name)
    assert english not in hear(client, file).text.lower()
    answer = client.audio.translations.create(model="whisper-1", file=file, response_format="verbose_json")
    assert answer.language == "english"
    assert english in answer.text.lower()
    assert "hello" in answer.text.lower()
    assert answer.segments


def test_an_english_only_model_does_not_translate(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="can't translate"):
        client.audio.translations.create(model="whisper-tiny.en", file=foreign_clip("fr", "bonjour_monde"))


def test_the_language_is_detected(client: openai.OpenAI) -> None:
    file = foreign_clip("fr", "bonjour_monde")
    assert hear(client, file).languages[0].code == "fr"
    assert hear(client, file, response_format="verbose_json").language == "french"
    assert hear(client, file, languages=["de", "en"]).languages[0].code in ("de", "en")


def test_keywords_and_prompt_bias_the_spelling(client: openai.OpenAI) -> None:
    file = say(client, "Ask Kathryn Smythe for the report.")
    assert "Kathryn" not in hear(client, file).text
    assert "Kathryn Smythe" in hear(client, file, keywords=["Qdrant", "Kathryn Smythe"]).text
    assert "Kathryn Smythe" in hear(client, file, prompt="A letter from Kathryn Smythe.").text


def test_streamed_deltas_are_the_text(client: openai.OpenAI, long_recording: bytes) -> None:
    *deltas, done = hear(client, long_recording, stream=True, include=["logprobs"])
    assert len(deltas) > 1
    assert "".join(event.delta for event in deltas) == done.text
    assert done.text == hear(client, long_recording).text
    assert [each.token for event in deltas for each in event.logprobs] == [each.token for each in done.logprobs]
    words = words_of(clip_text("quick_brown_fox"))
    assert words_of(done.text)[: len(words)] == words


@pytest.mark.parametrize("response_format", ["mp3", "opus"])
def test_spoken_events_are_heard(client: openai.OpenAI, response_format: str) -> None:
    stream: openai.Stream[Any] = client.post(
        "/audio/speech",
        body={
            "model": "tts-1", "voice": "nova", "input": TEXT,
            "response_format": response_format, "stream_format": "sse",
        },
        cast_to=object, stream=True, stream_cls=openai.Stream[Any],
    )  # fmt: skip
    with stream:
        *deltas, done = stream
    sound = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert done["usage"]["output_tokens"] == pytest.approx(decoded_seconds(sound) / 0.025, abs=4)
    assert done["usage"]["input_tokens"] > len(TEXT) / 2  # phonemes
    assert jiwer.wer(" ".join(words_of(TEXT)), " ".join(words_of(hear(client, sound).text))) <= 0.1


def test_subtitles_are_read_by_another_library(client: openai.OpenAI, long_recording: bytes) -> None:
    verbose = hear(client, long_recording, response_format="verbose_json")
    spans = [(round(1000 * segment.start), round(1000 * segment.end)) for segment in verbose.segments]
    for form in ("srt", "vtt"):
        cues = pysubs2.SSAFile.from_string(hear(client, long_recording, response_format=form), format_=form)
        assert [(cue.start, cue.end) for cue in cues] == spans
        assert words_of(" ".join(cue.plaintext for cue in cues)) == words_of(verbose.text)


def test_temperature_is_used(client: openai.OpenAI) -> None:
    answer = hear(client, clip("hello_world"), response_format="verbose_json", temperature=0.3)
    assert [segment.temperature for segment in answer.segments] == [pytest.approx(0.3)] * len(answer.segments)
    assert answer.segments
