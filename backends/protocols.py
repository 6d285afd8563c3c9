"""The two small protocols between the engines and the libraries that run models.

A backend is made, used and dropped on one thread. Its methods block; it knows no HTTP and no settings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

WHISPER_SAMPLE_RATE = 16_000  # Hz: what every transcription backend is given


@dataclass(frozen=True)
class ModelVoice:
    """A voice that a model brings."""

    id: str
    language: str | None = None
    gender: str | None = None


@dataclass(frozen=True)
class TranscriptionOptions:
    """How one window of audio is to be transcribed."""

    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0


def whisper_temperatures(asked: float) -> tuple[float, ...]:
    """The temperatures to try in turn: at 0, higher ones follow where the words repeat or are improbable.

    Source: openai/whisper `transcribe.py`; OpenAI's API documents the same for `temperature`.
    """
    return (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if asked == 0 else (asked,)


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its words. Times are in seconds from the start of the audio that was given."""

    start: float
    end: float
    text: str
    tokens: Sequence[int] = ()
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None


@dataclass(frozen=True)
class Transcript:
    """What a model heard. `language` is an ISO-639-1 code, None where the model can't tell."""

    segments: Sequence[Segment] = field(default_factory=tuple)
    language: str | None = None


class SpeechBackend(Protocol):
    """A loaded model that speaks."""

    name: str
    device: str
    sample_rate: int
    speed_range: tuple[float, float]  # what the model does by itself; (1, 1) where it has no speed

    def voices(self) -> Sequence[ModelVoice]:
        """The voices of the model; empty where it has none to name."""

    def language_of(self, voice: str) -> str | None:
        """The language that a voice speaks, for cutting the text into sentences."""

    def speak(self, text: str, voice: str | None, speed: float) -> Iterator[Pcm]:
        """One piece of text → float32 chunks, shape (samples,), in [-1, 1], at `sample_rate`.

        Yields nothing where the text holds nothing that can be spoken. `speed` lies within `speed_range`.
        `voice` is None only for a model that names no voices.
        """

    def memory_bytes(self) -> int | None:
        """What the model's weights take; None where that is not known."""


class TranscriptionBackend(Protocol):
    """A loaded model that transcribes."""

    name: str
    device: str

    def languages(self) -> Sequence[str]:
        """ISO-639-1 codes of the languages that the model knows; empty where it does not tell."""

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        """pcm: float32, shape (samples,), in [-1, 1], 16 kHz, at most 30 seconds."""

    def memory_bytes(self) -> int | None:
        """What the model's weights take; None where that is not known."""
