"""The two small protocols between the engines and the libraries that run models.

A backend is made, used and dropped on one thread. Its methods block; it knows no HTTP and no settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

WHISPER_SAMPLE_RATE = 16_000  # Hz: what every transcription backend is given

Feature = Literal["words", "logprobs", "segments"]
"""What a transcription can come with: times of words, log-probabilities of tokens, segments with times and figures."""


@dataclass(frozen=True)
class ModelVoice:
    """A voice that a model brings."""

    id: str
    language: str | None = None
    gender: str | None = None


@dataclass(frozen=True)
class SpeechOptions:
    """How one piece of text is to be spoken."""

    voice: str | None = None  # None only for a model that names no voices
    speed: float = 1.0  # within the model's `speed_range`
    instructions: str | None = None  # None for a model that takes none


@dataclass(frozen=True)
class Spoken:
    """Sound, and how many tokens the model read for it (0 for the further chunks of one call)."""

    pcm: Pcm  # float32, shape (samples,), in [-1, 1]
    input_tokens: int


@dataclass(frozen=True)
class TranscriptionOptions:
    """How one window of audio is to be transcribed."""

    language: str | None = None  # None where it is to be detected
    languages: tuple[str, ...] = ()  # the candidates, where there are several: the most probable one is taken
    prompt: str | None = None  # what was said before, or how it is to be written
    keywords: tuple[str, ...] = ()  # words that are likely to be said
    temperature: float = 0.0
    task: Literal["transcribe", "translate"] = "transcribe"  # "translate" is into English
    words: bool = False  # the times of the words are wanted
    logprobs: bool = False  # the log-probabilities of the tokens are wanted


def whisper_temperatures(asked: float) -> tuple[float, ...]:
    """The temperatures to try in turn: at 0, higher ones follow where the words repeat or are improbable.

    Source: openai/whisper `transcribe.py`; OpenAI's API documents the same for `temperature`.
    """
    return (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if asked == 0 else (asked,)


@dataclass(frozen=True)
class Word:
    """A word as it is written, without spaces around it. Times are in seconds, as those of its segment."""

    start: float
    end: float
    word: str


@dataclass(frozen=True)
class TokenLogprob:
    """A token, and the natural logarithm of its probability among all tokens that are text.

    That is given the sound, the prompt and the text before it; what openai/whisper takes for a word's probability.
    """

    token: str  # with replacement characters where the token holds only a part of a character
    logprob: float
    bytes: tuple[int, ...]  # UTF-8


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
    seek: int = 0  # where the window that it was heard in starts, in frames of 10 ms
    words: Sequence[Word] = ()
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class Transcript:
    """What a model heard. `language` is the ISO-639-1 code of what was spoken, None where the model can't tell."""

    segments: Sequence[Segment] = field(default_factory=tuple)
    language: str | None = None


class SpeechBackend(Protocol):
    """A loaded model that speaks."""

    name: str
    device: str
    sample_rate: int
    speed_range: tuple[float, float]  # what the model does by itself; (1, 1) where it has no speed
    takes_instructions: bool

    def voices(self) -> Sequence[ModelVoice]:
        """The voices of the model; empty where it has none to name."""

    def language_of(self, voice: str) -> str | None:
        """The language that a voice speaks, for cutting the text into sentences."""

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        """One piece of text → chunks at `sample_rate`, in order, as the model makes them.

        Yields nothing where the text holds nothing that can be spoken.
        """

    def memory_bytes(self) -> int | None:
        """What the model's weights take; None where that is not known."""


class TranscriptionBackend(Protocol):
    """A loaded model that transcribes."""

    name: str
    device: str

    def languages(self) -> Sequence[str]:
        """ISO-639-1 codes of the languages that the model knows; empty where it does not tell."""

    def can_translate(self) -> bool:
        """Whether the model translates into English."""

    def supports(self, feature: Feature) -> bool:
        """Whether the model gives this with its text. What it does not give is empty or None in its segments."""

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        """pcm: float32, shape (samples,), in [-1, 1], 16 kHz, at most 30 seconds.

        `options.languages` is not looked at: what it asks for is decided before, by `language_probabilities`.
        """

    def language_probabilities(self, pcm: Pcm) -> Mapping[str, float]:
        """ISO-639-1 code → how probable it is that this is spoken; empty where the model can't tell. pcm as above."""

    def count_tokens(self, text: str) -> int | None:
        """How many tokens the text is to the model; None where it has no tokenizer to ask. For any thread."""

    def memory_bytes(self) -> int | None:
        """What the model's weights take; None where that is not known."""
