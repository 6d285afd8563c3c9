"""POST /v1/audio/translations: an upload in any language in, English words out."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app_state import State
from backends.protocols import TranscriptionOptions
from openai_api import Translation, TranslationRequest, VerboseTranslation
from routes.forms import documented, submitted
from routes.hearing import decoded, text_of, verbose_segments
from subtitles import subtitles

router = APIRouter(tags=["audio"])


@router.post(
    "/v1/audio/translations",
    response_model=Translation | VerboseTranslation,
    responses={200: {"content": {"text/plain": {}}, "description": "In the asked format."}},
    openapi_extra=documented(TranslationRequest),
)
async def create_translation(request: Request, state: State) -> Response:
    """Translate an audio file into English, with a model that can."""
    async with submitted(request, TranslationRequest) as (form, file):
        engine = await state.pool.transcription(form.model)
        recording = await decoded(file, state)
    options = TranscriptionOptions(prompt=form.prompt, temperature=form.temperature, task="translate")
    heard = await engine.transcribe(recording.pcm, options, timing=recording.timing)
    headers = recording.timing_headers(finished=True)
    text = text_of(heard.segments)
    match form.response_format:
        case "text":
            return PlainTextResponse(text + "\n", headers=headers)
        case "srt" | "vtt" as subtitle_form:
            return PlainTextResponse(subtitles(heard.segments, subtitle_form), headers=headers)
        case "verbose_json":
            segments = verbose_segments(heard.segments)
            verbose = VerboseTranslation(duration=recording.seconds, text=text, segments=segments)
            return JSONResponse(verbose.model_dump(exclude_none=True), headers=headers)
    return JSONResponse(Translation(text=text).model_dump(), headers=headers)
