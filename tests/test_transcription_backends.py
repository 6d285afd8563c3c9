"""Both engines with the real Whisper models: words, their times, log-probabilities, prompts, languages, translation."""

import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper.tokenizer import Tokenizer
from tokenizers import Tokenizer as TokenizerFile

import embedded_models
import mlx_cpu
from audio_converter import decode
from backends import mlx_audio
from backends.faster_whisper import FasterWhisperBackend
from backends.protocols import (
    WHISPER_SAMPLE_RATE,
    Pcm,
    Segment,
    Transcript,
    TranscriptionBackend,
    TranscriptionOptions,
)
from backends.whisper import BYTES, MAX_PROMPT_TOKENS, Aligned, prompt_tokens, with_details
from tests.conftest import clip_pcm, clip_text

real = pytest.mark.real
both_engines = pytest.mark.parametrize("engine", ["faster_whisper", "mlx_audio"])
both_models = pytest.mark.parametrize("model", ["whisper-base", "whisper-tiny.en"])

FOX = "quick_brown_fox"
# A model writes "Lazy Dog" unless it is told the names.
NAMES = ("Kwick", "Foxx", "Layzee Dogg")

Load = Callable[[str, str], TranscriptionBackend]


@pytest.fixture(scope="module")
def load(model_cache: Path) -> Load:
    """An engine with a model, each loaded once."""

    @functools.cache
    def load(engine: str, model: str) -> TranscriptionBackend:
        if engine == "faster_whisper":
            return FasterWhisperBackend(embedded_models.checkpoint(model, "ctranslate2", model_cache))
        return mlx_audio.load_transcription(embedded_models.checkpoint(model, "mlx", model_cache), "cpu", model_cache)

    return load


@pytest.fixture(scope="module")
def fox(load: Load) -> Callable[[str, str], Transcript]:
    """What a model hears in one clip with everything asked for, each heard once."""

    @functools.cache
    def fox(engine: str, model: str) -> Transcript:
        return hear(load(engine, model), clip_pcm(FOX), words=True, logprobs=True)

    return fox


@pytest.fixture(scope="module")
def tokenizer(model_cache: Path) -> Tokenizer:
    file = embedded_models.checkpoint("whisper-tiny.en", "ctranslate2", model_cache) / "tokenizer.json"
    return Tokenizer(TokenizerFile.from_file(str(file)), multilingual=False)


def hear(backend: TranscriptionBackend, pcm: Pcm, **options: Any) -> Transcript:
    return backend.transcribe(pcm, TranscriptionOptions(**options))


def foreign_clip(language: str, name: str) -> Pcm:
    path = resources.files("pytest_audioeval") / "samples" / "audio" / language / f"{name}.wav"
    return decode(path.read_bytes(), sample_rate=WHISPER_SAMPLE_RATE)


def text_of(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def assert_words_are_those_of_the_text_and_rise(segments: Sequence[Segment], seconds: float) -> None:
    for segment in segments:
        assert "".join(word.word for word in segment.words).replace(" ", "") == segment.text.replace(" ", "")
        assert all(word.word == word.word.strip() != "" for word in segment.words)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    times = [(word.start, word.end) for segment in segments for word in segment.words]
    assert all(0 <= start <= end <= seconds for start, end in times)
    assert all(end <= following for (_, end), (following, _) in itertools.pairwise(times))


def assert_logprobs_are_those_of_the_text(segment: Segment) -> None:
    assert b"".join(bytes(each.bytes) for each in segment.logprobs).decode() == segment.text
    assert all(each.logprob <= 0 for each in segment.logprobs)
    # The average is over the timestamps and the end as well, so its sum is the smaller one.
    assert segment.avg_logprob is not None
    total = segment.avg_logprob * (len(segment.tokens) + 1)
    assert total - 0.5 <= sum(each.logprob for each in segment.logprobs) <= 0


@real
@both_engines
@both_models
def test_every_field_of_a_segment_is_computed(fox: Callable[[str, str], Transcript], engine: str, model: str) -> None:
    heard = fox(engine, model)
    (segment,) = heard.segments
    assert heard.language == "en"
    assert segment.text == f" {clip_text(FOX)}"
    assert (segment.temperature, segment.seek) == (0.0, 0)
    assert segment.tokens
    assert all(type(token) is int for token in segment.tokens)
    assert segment.avg_logprob is not None
    assert -1 < segment.avg_logprob < 0
    text = segment.text.strip().encode()
    assert segment.compression_ratio == pytest.approx(len(text) / len(zlib.compress(text)))
    assert segment.no_speech_prob is not None
    assert 0 <= segment.no_speech_prob < 0.1


@real
@both_engines
@both_models
def test_words_and_logprobs_are_those_of_the_text(
    fox: Callable[[str, str], Transcript], engine: str, model: str
) -> None:
    segments = fox(engine, model).segments
    assert_words_are_those_of_the_text_and_rise(segments, len(clip_pcm(FOX)) / WHISPER_SAMPLE_RATE)
    assert [word.word for word in segments[0].words] == clip_text(FOX).split()
    assert all(word.end - word.start > 0.01 for word in segments[0].words)
    assert_logprobs_are_those_of_the_text(segments[0])


@real
@both_models
def test_the_engines_agree(fox: Callable[[str, str], Transcript], model: str) -> None:
    """One computes in int8 and the other in float32, so they are close and not the same."""
    ours, theirs = fox("faster_whisper", model).segments[0], fox("mlx_audio", model).segments[0]
    assert ours.compression_ratio == theirs.compression_ratio
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=0.1)
    for one, other in zip(ours.words, theirs.words, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.1)
    for one_token, other_token in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert (one_token.token, one_token.bytes) == (other_token.token, other_token.bytes)
        assert one_token.logprob == pytest.approx(other_token.logprob, abs=0.1)


@real
@both_engines
@both_models
def test_keywords_and_prompt_bias_the_words(load: Load, engine: str, model: str) -> None:
    prompt = "It was a lecture about animals, and nobody listened." * 200  # 10,400 characters
    heard = hear(
        load(engine, model), clip_pcm(FOX), language="en", keywords=NAMES, prompt=prompt, words=True, logprobs=True
    )
    assert "Dogg" in text_of(heard.segments)
    assert_words_are_those_of_the_text_and_rise(heard.segments, len(clip_pcm(FOX)) / WHISPER_SAMPLE_RATE)
    assert_logprobs_are_those_of_the_text(heard.segments[0])


@real
@both_engines
def test_the_languages_are_told_apart(load: Load, engine: str) -> None:
    backend = load(engine, "whisper-base")
    probabilities = backend.language_probabilities(foreign_clip("ja", "konnichiwa_sekai"))
    assert max(probabilities, key=probabilities.__getitem__) == "ja"
    assert sum(probabilities.values()) == pytest.approx(1, abs=0.01)
    assert set(probabilities) == set(backend.languages())


@real
@both_engines
def test_another_language_is_translated(load: Load, engine: str) -> None:
    backend = load(engine, "whisper-base")
    assert backend.can_translate()
    heard = hear(backend, foreign_clip("fr", "bonjour_monde"), task="translate", words=True)
    assert heard.language == "fr"
    assert {"hello", "world"} <= set(text_of(heard.segments).lower().strip(" .!").replace(",", "").split())
    assert heard.segments[0].words


@real
@both_engines
def test_a_model_for_english_only(load: Load, engine: str) -> None:
    backend = load(engine, "whisper-tiny.en")
    assert backend.languages() == ["en"]
    assert not backend.can_translate()
    assert backend.language_probabilities(clip_pcm(FOX)) == {"en": 1.0}
    (segment,) = hear(backend, clip_pcm(FOX), language="en", temperature=0.2).segments
    assert segment.temperature == 0.2
    assert "fox" in segment.text
    assert (segment.words, segment.logprobs) == ((), ())


@real
@both_engines
def test_tokens_are_counted(load: Load, engine: str) -> None:
    backend = load(engine, "whisper-tiny.en")
    assert backend.count_tokens("") == 0
    assert backend.count_tokens(" The quick brown fox") == 4
    assert all(backend.supports(feature) for feature in ("words", "logprobs", "segments"))


@real
@both_engines
def test_silence_gives_nothing_that_fails(load: Load, engine: str) -> None:
    nothing = np.zeros(WHISPER_SAMPLE_RATE // 2, dtype=np.float32)
    heard = hear(load(engine, "whisper-tiny.en"), nothing, temperature=1.0, words=True, logprobs=True)
    assert_words_are_those_of_the_text_and_rise(heard.segments, 0.5)


@real
def test_a_token_may_be_a_part_of_a_character(load: Load) -> None:
    heard = hear(
        load("faster_whisper", "whisper-base"),
        foreign_clip("zh", "pangrama"),
        language="zh",
        words=True,
        logprobs=True,
    )
    parts = [
        each for segment in heard.segments for each in segment.logprobs if "\N{REPLACEMENT CHARACTER}" in each.token
    ]
    assert parts, text_of(heard.segments)
    for segment in heard.segments:
        assert_logprobs_are_those_of_the_text(segment)
    assert_words_are_those_of_the_text_and_rise(
        heard.segments, len(foreign_clip("zh", "pangrama")) / WHISPER_SAMPLE_RATE
    )


@real
def test_a_window_with_several_sentences(load: Load) -> None:
    """Asking for the words changes no text, and each word lies about where its clip is."""
    names = ["counting", FOX, "hello_world"]
    clips = [clip_pcm(name) for name in names]
    pause = np.zeros(WHISPER_SAMPLE_RATE, dtype=np.float32)
    pcm = np.concatenate([part for clip in clips for part in (clip, pause)])
    backend = load("faster_whisper", "whisper-base")
    plain = hear(backend, pcm, language="en").segments
    detailed = hear(backend, pcm, language="en", words=True, logprobs=True).segments
    assert [segment.text for segment in detailed] == [segment.text for segment in plain]
    assert_words_are_those_of_the_text_and_rise(detailed, len(pcm) / WHISPER_SAMPLE_RATE)
    for segment in detailed:
        assert b"".join(bytes(each.bytes) for each in segment.logprobs).decode() == segment.text
    words = {word.word.lower().strip(".,"): word for segment in detailed for word in segment.words}
    begins = np.cumsum([0.0, *((len(clip) + len(pause)) / WHISPER_SAMPLE_RATE for clip in clips)])
    assert begins[1] - 0.5 < words["quick"].start < words["dog"].end < begins[2] - 0.5
    assert begins[2] - 0.5 < words["hello"].start < words["world"].end < begins[3] - 0.5


@real
def test_words_rise_over_parts_and_stay_in_their_segments(tokenizer: Tokenizer) -> None:
    """A second part is heard from where the first one's timestamps end, which its words may lie behind."""

    def segment(text: str, seek: int) -> Segment:
        return Segment(seek / 100, seek / 100 + 1, text, tuple(tokenizer.encode(text)), seek=seek)

    def align(part: Sequence[Segment]) -> Aligned:
        tokens = sum(len(segment.tokens) for segment in part)
        return Aligned(times=0.2 * np.arange(tokens + 1), logprobs=np.full(tokens, -0.5))

    # The quotation mark belongs to the next word, which is another segment's; the dash to none before it.
    segments = [segment(' He said, "', 0), segment(" Hello world.", 0), segment("- Yes, 30%.", 50)]
    detailed = with_details(segments, align, tokenizer, TranscriptionOptions(words=True, logprobs=True))
    assert_words_are_those_of_the_text_and_rise(detailed, 10.0)
    assert [[word.word for word in segment.words] for segment in detailed] == [
        ["He", "said,", '"'],
        ["Hello", "world."],
        ["-", "Yes,", "30%."],
    ]
    assert [len(segment.logprobs) for segment in detailed] == [len(segment.tokens) for segment in segments]


@real
@pytest.mark.parametrize(
    ("prompt", "keywords"),
    [
        ("", ()),
        ("word " * 2_000, ()),
        ("word " * 2_000, NAMES),
        ("word", ("name",) * 500),
        ("word " * 300, ("name",) * 500),
    ],
)
def test_a_prompt_is_as_long_as_whisper_hears(tokenizer: Tokenizer, prompt: str, keywords: tuple[str, ...]) -> None:
    tokens = prompt_tokens(TranscriptionOptions(prompt=prompt, keywords=keywords), tokenizer)
    assert len(tokens) <= MAX_PROMPT_TOKENS
    if len(prompt) > 1_000:
        assert len(tokens) > MAX_PROMPT_TOKENS - 5
    text = tokenizer.decode(tokens)
    assert text.count("word") >= min(prompt.count("word"), MAX_PROMPT_TOKENS // 3)
    assert all(keyword in text for keyword in keywords)


@real
def test_the_end_of_a_prompt_is_kept_and_steers_nothing(tokenizer: Tokenizer) -> None:
    options = TranscriptionOptions(prompt="first " * 300 + "<|endoftext|><|translate|> last")
    text = tokenizer.tokenizer.decode(prompt_tokens(options, tokenizer), skip_special_tokens=False)
    assert text.startswith(" first first")
    assert text.endswith("first  last")


def test_every_byte_has_its_letter() -> None:
    assert sorted(BYTES.values()) == list(range(256))
    assert [BYTES[letter] for letter in "Aé\u0120\u010a"] == [ord("A"), 0xE9, ord(" "), ord("\n")]


class OtherFamily:
    """A model of mlx-audio that is no Whisper."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def generate(self, audio: Any, *, language: str | None = None, hotwords: list[str] | None = None) -> Any:
        self.calls.append({"samples": audio.shape[0], "language": language, "hotwords": hotwords})
        return SimpleNamespace(text=" some words")


def test_another_family_gives_its_text_and_invents_nothing(model_cache: Path) -> None:
    mlx_cpu.accelerate(model_cache)  # before anything imports MLX
    from backends.mlx_transcription import MlxTranscription

    model = OtherFamily()
    backend = MlxTranscription(model, "cpu")
    heard = hear(backend, clip_pcm(FOX), language="en", keywords=("Fox",), prompt="x", words=True, logprobs=True)
    assert model.calls == [{"samples": len(clip_pcm(FOX)), "language": "en", "hotwords": ["Fox"]}]
    assert heard.segments == [Segment(0.0, len(clip_pcm(FOX)) / WHISPER_SAMPLE_RATE, " some words")]
    assert not any(backend.supports(feature) for feature in ("words", "logprobs", "segments"))
    assert not backend.can_translate()
    assert backend.language_probabilities(clip_pcm(FOX)) == {}
    assert backend.count_tokens("some words") is None
