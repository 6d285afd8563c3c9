"""POST /v1/audio/speech: text in, sound out while it is being made."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import ParamSpec, TypeVar

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

import voice_presets
from app_state import AppState, State
from audio_converter import FORMATS, Encoder
from backends.protocols import Pcm
from errors import InputTooLong
from openai_api import SpeechRequest
from tts_engine import TtsEngine

P = ParamSpec("P")
T = TypeVar("T")

router = APIRouter(tags=["audio"])

AUDIO_CONTENT: dict[str, dict[str, str]] = {audio_format.content_type: {} for audio_format in FORMATS.values()}


@router.post(
    "/v1/audio/speech",
    response_class=StreamingResponse,
    responses={200: {"description": "The sound, in the asked format.", "content": AUDIO_CONTENT}},
)
async def create_speech(body: SpeechRequest, state: State) -> StreamingResponse:
    """Speak a text. The body streams: it begins before the whole text is spoken."""
    _check_length(body.input, state)
    engine = await state.pool.speech(body.model)
    audio_format = FORMATS[body.response_format or state.settings.default_format]
    chunks = engine.speak(body.input, _voice(body, engine, state), body.speed)
    encoded = _encoded(chunks, Encoder(audio_format.name, engine.sample_rate))
    # The first bytes come before the status line: what can fail by then is a real 4xx or 5xx.
    first = await anext(encoded)
    return StreamingResponse(
        _following(first, encoded),
        media_type=audio_format.content_type,
        headers={"Content-Disposition": f'attachment; filename="speech.{audio_format.extension}"'},
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


async def _encoded(chunks: AsyncGenerator[Pcm], encoder: Encoder) -> AsyncGenerator[bytes]:
    try:
        async for pcm in chunks:
            if data := await _in_thread(encoder.encode, pcm):
                yield data
        yield await _in_thread(encoder.finish)
    finally:
        await chunks.aclose()
        encoder.close()


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it off the event loop, and to its end even when cancelled: FFmpeg must not be closed under it."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _following(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()
