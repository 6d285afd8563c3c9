"""Small engines with a deterministic output. They stand for models, never for code of speechd."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from backends.protocols import (
    Feature,
    ModelVoice,
    Pcm,
    Segment,
    SpeechOptions,
    Spoken,
    TokenLogprob,
    Transcript,
    TranscriptionOptions,
    Word,
)

SAMPLE_RATE = 24_000
SAMPLES_PER_CHARACTER = 1_200  # 50 ms


class FakeSpeech:
    """A tone as long as the text. `failure` is raised, `chunk` returned instead, where they are set."""

    name = "fake"
    device = "cpu"
    sample_rate = SAMPLE_RATE
    speed_range = (0.5, 2.0)
    takes_instructions = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, SpeechOptions]] = []
        self.failure: Exception | None = None
        self.fail_at_call = 0
        self.chunk: Pcm | None = None

    def voices(self) -> Sequence[ModelVoice]:
        return [
            ModelVoice("af_heart", "en-us", "female"),
            ModelVoice("af_alloy", "en-us", "female"),
            ModelVoice("bm_george", "en-gb", "male"),
        ]

    def language_of(self, voice: str) -> str | None:
        return "en-us"

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        self.calls.append((text, options))
        if self.failure is not None and len(self.calls) > self.fail_at_call:
            raise self.failure
        letters = sum(character.isalnum() for character in text)
        if self.chunk is not None:
            yield Spoken(self.chunk, letters)
        elif letters:
            samples = np.arange(int(letters * SAMPLES_PER_CHARACTER / options.speed))
            yield Spoken((0.5 * np.sin(2 * np.pi * 440 * samples / SAMPLE_RATE)).astype(np.float32), letters)

    def memory_bytes(self) -> int | None:
        return 1_000


class FakeTranscription:
    """Hears the same words in every window. It can do everything; its attributes take that away."""

    name = "fake"
    device = "cpu"

    def __init__(self) -> None:
        self.calls: list[tuple[int, TranscriptionOptions]] = []
        self.failure: Exception | None = None
        self.fail_at_call = 0
        self.translates = True
        self.gives: set[Feature] = {"words", "logprobs", "segments"}
        self.probabilities = {"en": 0.7, "de": 0.2, "fr": 0.1}
        self.tokenizes = True

    def languages(self) -> Sequence[str]:
        return ["en", "de", "fr"]

    def can_translate(self) -> bool:
        return self.translates

    def supports(self, feature: Feature) -> bool:
        return feature in self.gives

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        self.calls.append((len(pcm), options))
        if self.failure is not None and len(self.calls) > self.fail_at_call:
            raise self.failure
        language = options.language or max(self.probabilities, key=self.probabilities.__getitem__, default=None)
        if "segments" not in self.gives:
            return Transcript(segments=[Segment(start=0.0, end=1.0, text=" some words")], language=language)
        words = (Word(0.0, 0.5, "some"), Word(0.5, 1.0, "words"))
        logprobs = [TokenLogprob(text, -0.25, tuple(text.encode())) for text in (" some", " words")]
        heard = Segment(
            start=0.0,
            end=1.0,
            text=" some words",
            tokens=(50364, 512, 2283, 50414),
            temperature=options.temperature,
            avg_logprob=-0.25,
            compression_ratio=0.5,
            no_speech_prob=0.125,
            words=words if options.words and self.supports("words") else (),
            logprobs=logprobs if options.logprobs and self.supports("logprobs") else (),
        )
        return Transcript(segments=[heard], language=language)

    def language_probabilities(self, pcm: Pcm) -> Mapping[str, float]:
        return self.probabilities

    def count_tokens(self, text: str) -> int | None:
        return len(text.split()) if self.tokenizes else None

    def memory_bytes(self) -> int | None:
        return None
