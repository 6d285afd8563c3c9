"""POST /v1/audio/transcriptions: an upload in, its words out."""

import asyncio
import math
import time
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import Field

from app_state import State
from audio_converter import decode
from backends.protocols import WHISPER_SAMPLE_RATE, TranscriptionOptions
from openai_api import DetectedLanguage, DurationUsage, Transcription, TranscriptionRequest
from stt_engine import text_of

router = APIRouter(tags=["audio"])


class TranscriptionForm(TranscriptionRequest):
    """The whole form. What the file is called, and as what it is sent, decides nothing: its content does."""

    file: UploadFile = Field(description="flac, mp3, mp4, mpeg, mpga, m4a, ogg, opus, wav or webm")


@router.post(
    "/v1/audio/transcriptions",
    response_model=Transcription,
    responses={200: {"content": {"text/plain": {}}, "description": "The text, as JSON or as plain text."}},
)
async def create_transcription(
    form: Annotated[TranscriptionForm, Form(media_type="multipart/form-data")], state: State
) -> Response:
    """Transcribe an audio file in the language that it is spoken in."""
    begun = time.perf_counter()
    engine = await state.pool.transcription(form.model)
    pcm = await asyncio.to_thread(
        decode,
        form.file.file,
        sample_rate=WHISPER_SAMPLE_RATE,
        max_seconds=state.settings.max_audio_seconds,
    )
    options = TranscriptionOptions(language=form.language, prompt=form.prompt, temperature=form.temperature)
    transcript = await engine.transcribe(pcm, options)
    headers = {"X-Generation-Time": f"{time.perf_counter() - begun:.3f}"}
    text = text_of(transcript)
    if form.response_format == "text":
        return PlainTextResponse(text + "\n", headers=headers)
    answer = Transcription(
        text=text,
        languages=[DetectedLanguage(code=transcript.language)] if transcript.language else None,
        usage=DurationUsage(seconds=math.ceil(len(pcm) / WHISPER_SAMPLE_RATE)),
    )
    return JSONResponse(answer.model_dump(exclude_none=True), headers=headers)
