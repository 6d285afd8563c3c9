"""What transcriptions and translations have in common: the upload decoded, and an answer in each format."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import UploadFile

from app_state import AppState
from audio_converter import decode
from backends.protocols import WHISPER_SAMPLE_RATE, Pcm, Segment
from inference_thread import Timing
from openai_api import (
    DurationUsage,
    InputTokenDetails,
    Logprob,
    TokenUsage,
    TranscriptionSegment,
    TranscriptionWord,
)
from routes.streaming import server_timing
from stt_engine import SttEngine

AUDIO_TOKENS_PER_SECOND = 50  # frames of Whisper's encoder


@dataclass
class Recording:
    """A decoded upload, and what its answer takes."""

    pcm: Pcm
    decode_seconds: float
    timing: Timing = field(default_factory=Timing)
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / WHISPER_SAMPLE_RATE

    def duration_usage(self) -> DurationUsage:
        return DurationUsage(seconds=math.ceil(self.seconds))

    def timing_headers(self, *, finished: bool) -> dict[str, str]:
        """What it took so far; the whole is known only when it is finished."""
        took = {"decode": self.decode_seconds, "queue": self.timing.queue, "model": self.timing.model}
        headers = {"Server-Timing": server_timing(took)}
        if finished:
            total = self.decode_seconds + time.perf_counter() - self.begun
            headers["X-Generation-Time"] = f"{total:.3f}"
        return headers


async def decoded(file: UploadFile, state: AppState) -> Recording:
    """Raises InvalidAudio where the upload is no sound."""
    begun = time.perf_counter()
    pcm = await asyncio.to_thread(
        decode, file.file, sample_rate=WHISPER_SAMPLE_RATE, max_seconds=state.settings.max_audio_seconds
    )
    return Recording(pcm, decode_seconds=time.perf_counter() - begun)


def text_of(segments: Sequence[Segment]) -> str:
    """The whole text. Models put a space before each segment that needs one."""
    return "".join(segment.text for segment in segments).strip()


def token_usage(engine: SttEngine, prompt: str, seconds: float, segments: Sequence[Segment]) -> TokenUsage:
    """Tokens in, by the model's tokenizer and its encoder, and tokens out."""
    text_tokens = engine.backend.count_tokens(prompt) or 0 if prompt else 0
    audio_tokens = math.ceil(seconds * AUDIO_TOKENS_PER_SECOND)
    output_tokens = sum(len(segment.tokens) for segment in segments)
    if not output_tokens:  # not every model shows its tokens
        output_tokens = engine.backend.count_tokens(text_of(segments)) or 0
    input_tokens = text_tokens + audio_tokens
    return TokenUsage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        input_token_details=InputTokenDetails(text_tokens=text_tokens, audio_tokens=audio_tokens),
    )


def logprobs_of(segments: Sequence[Segment]) -> list[Logprob]:
    return [
        Logprob(token=each.token, logprob=each.logprob, bytes=list(each.bytes))
        for segment in segments
        for each in segment.logprobs
    ]


def verbose_segments(segments: Sequence[Segment]) -> list[TranscriptionSegment]:
    return [
        TranscriptionSegment(
            id=number,
            seek=segment.seek,
            start=segment.start,
            end=segment.end,
            text=segment.text,
            tokens=list(segment.tokens),
            temperature=segment.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
        )
        for number, segment in enumerate(segments)
    ]


def verbose_words(segments: Sequence[Segment]) -> list[TranscriptionWord]:
    return [
        TranscriptionWord(word=word.word, start=word.start, end=word.end)
        for segment in segments
        for word in segment.words
    ]
