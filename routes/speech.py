"""POST /v1/audio/speech: text in, sound out while it is being made."""

import base64
import time
from collections.abc import AsyncGenerator

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

import sse
import voice_presets
from app_state import AppState, State
from audio_converter import FORMATS, AudioFormat, Encoder
from backends.protocols import SpeechOptions, Spoken
from errors import InputTooLong
from inference_thread import Timing
from openai_api import SpeechAudioDelta, SpeechAudioDone, SpeechRequest, SpeechUsage
from routes.streaming import in_thread, server_timing, started
from tts_engine import TtsEngine

SECONDS_PER_OUTPUT_TOKEN = 0.025  # one frame of Kokoro's

router = APIRouter(tags=["audio"])

CONTENT: dict[str, dict[str, str]] = {audio_format.content_type: {} for audio_format in FORMATS.values()}


@router.post(
    "/v1/audio/speech",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The sound in the asked format, or with stream_format=sse events that carry it.",
            "content": CONTENT | {sse.CONTENT_TYPE: {}},
        }
    },
)
async def create_speech(body: SpeechRequest, state: State) -> Response:
    """Speak a text. The answer streams: it begins before the whole text is spoken."""
    _check_length(body.input, state)
    engine = await state.pool.speech(body.model)
    options = SpeechOptions(voice=_voice(body, engine, state), speed=body.speed or 1.0, instructions=body.instructions)
    speech = _Speech(engine, FORMATS[body.response_format or state.settings.default_format])
    chunks = engine.speak(body.input, options, speech.timing)
    if body.stream_format == "sse":
        events = sse.with_errors_in_band(await started(speech.events(chunks)))
        return StreamingResponse(events, media_type=sse.CONTENT_TYPE, headers=sse.HEADERS | speech.timing_header())
    if body.stream is False:
        return await speech.whole(chunks)
    encoded = await started(speech.encoded(chunks))
    headers = speech.file_headers() | speech.timing_header()
    return StreamingResponse(encoded, media_type=speech.audio_format.content_type, headers=headers)


class _Speech:
    """One answer on its way: encodes the sound, and counts what it took."""

    def __init__(self, engine: TtsEngine, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format
        self.timing = Timing()
        self._sample_rate = engine.sample_rate
        self._encode_seconds = 0.0
        self._input_tokens = 0
        self._samples = 0

    async def encoded(self, chunks: AsyncGenerator[Spoken], total_samples: int | None = None) -> AsyncGenerator[bytes]:
        """The bytes of one file, some with every chunk."""
        encoder = Encoder(self.audio_format.name, self._sample_rate, total_samples=total_samples)
        try:
            async for spoken in chunks:
                self._input_tokens += spoken.input_tokens
                self._samples += spoken.pcm.size
                begun = time.perf_counter()
                data = await in_thread(encoder.encode, spoken.pcm)
                self._encode_seconds += time.perf_counter() - begun
                if data:
                    yield data
            if data := await in_thread(encoder.finish):
                yield data
        finally:
            await chunks.aclose()
            encoder.close()

    async def events(self, chunks: AsyncGenerator[Spoken]) -> AsyncGenerator[bytes]:
        """The same bytes in events, and at the end what they took."""
        parts = self.encoded(chunks)
        try:
            async for data in parts:
                yield sse.event(SpeechAudioDelta(audio=base64.b64encode(data).decode("ascii")))
        finally:
            await parts.aclose()
        yield sse.event(SpeechAudioDone(usage=self._usage()))

    async def whole(self, chunks: AsyncGenerator[Spoken]) -> Response:
        """The answer for a client that does not want a stream: a file that knows its length."""
        begun = time.perf_counter()
        spoken = [each async for each in chunks]
        pcm = np.concatenate([each.pcm for each in spoken])

        async def as_one() -> AsyncGenerator[Spoken]:
            yield Spoken(pcm, sum(each.input_tokens for each in spoken))

        body = b"".join([data async for data in self.encoded(as_one(), total_samples=pcm.size)])
        headers = self.file_headers() | self.timing_header()
        headers["X-Generation-Time"] = f"{time.perf_counter() - begun:.3f}"
        return Response(body, media_type=self.audio_format.content_type, headers=headers)

    def file_headers(self) -> dict[str, str]:
        return {"Content-Disposition": f'attachment; filename="speech.{self.audio_format.extension}"'}

    def timing_header(self) -> dict[str, str]:
        """What it took so far: for a stream, up to its first sound."""
        took = {"queue": self.timing.queue, "model": self.timing.model, "encode": self._encode_seconds}
        return {"Server-Timing": server_timing(took)}

    def _usage(self) -> SpeechUsage:
        output_tokens = round(self._samples / self._sample_rate / SECONDS_PER_OUTPUT_TOKEN)
        return SpeechUsage(
            input_tokens=self._input_tokens,
            output_tokens=output_tokens,
            total_tokens=self._input_tokens + output_tokens,
        )


def _check_length(text: str, state: AppState) -> None:
    limit = state.settings.max_input_length
    if len(text) > limit:
        message = f"The text has {len(text):,} characters; the limit is {limit:,} (SPEECHD_MAX_INPUT_LENGTH)."
        raise InputTooLong(message, param="input")


def _voice(body: SpeechRequest, engine: TtsEngine, state: AppState) -> str | None:
    name = body.voice_name
    if name is None:
        return engine.default_voice(state.settings.default_voice)
    return voice_presets.resolve(name, state.presets, list(engine.voices))
