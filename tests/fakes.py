"""Small engines with a deterministic output. They stand for models, never for code of speechd."""

from collections.abc import Iterator, Sequence

import numpy as np

from backends.protocols import ModelVoice, Pcm, Segment, Transcript, TranscriptionOptions

SAMPLE_RATE = 24_000
SAMPLES_PER_CHARACTER = 1_200  # 50 ms


class FakeSpeech:
    """A tone as long as the text. `failure` is raised, `chunk` returned instead, where they are set."""

    name = "fake"
    device = "cpu"
    sample_rate = SAMPLE_RATE
    speed_range = (0.5, 2.0)

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, float]] = []
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

    def speak(self, text: str, voice: str | None, speed: float) -> Iterator[Pcm]:
        self.calls.append((text, voice, speed))
        if self.failure is not None and len(self.calls) > self.fail_at_call:
            raise self.failure
        if self.chunk is not None:
            yield self.chunk
            return
        letters = sum(character.isalnum() for character in text)
        if letters:
            samples = np.arange(int(letters * SAMPLES_PER_CHARACTER / speed))
            yield (0.5 * np.sin(2 * np.pi * 440 * samples / SAMPLE_RATE)).astype(np.float32)

    def memory_bytes(self) -> int | None:
        return 1_000


class FakeTranscription:
    """Hears the same words in every window."""

    name = "fake"
    device = "cpu"

    def __init__(self) -> None:
        self.calls: list[tuple[int, TranscriptionOptions]] = []
        self.failure: Exception | None = None

    def languages(self) -> Sequence[str]:
        return ["en", "de", "fr"]

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        self.calls.append((len(pcm), options))
        if self.failure is not None:
            raise self.failure
        words = Segment(start=0.0, end=1.0, text=" some words")
        return Transcript(segments=[words], language=options.language or "en")

    def memory_bytes(self) -> int | None:
        return None
