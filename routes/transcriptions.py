"""POST /v1/audio/transcriptions: an upload in, its words out."""

from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

import sse
from app_state import State
from backends.protocols import Segment, Transcript, TranscriptionOptions
from errors import InvalidRequest
from openai_api import (
    DetectedLanguage,
    ServerVad,
    TokenUsage,
    Transcription,
    TranscriptionRequest,
    TranscriptTextDelta,
    TranscriptTextDone,
    VerboseTranscription,
)
from routes.forms import documented, submitted
from routes.hearing import (
    Recording,
    decoded,
    logprobs_of,
    text_of,
    token_usage,
    verbose_segments,
    verbose_words,
)
from routes.streaming import started
from stt_engine import SttEngine
from subtitles import subtitles
from voice_activity import AUTO, VoiceActivity
from whisper_languages import code_of, name_of

# OpenAI's models of this family count tokens; whisper-1, and with it every local model, counts seconds.
TOKEN_COUNTING_PREFIX = "gpt-"  # noqa: S105  # no secret

router = APIRouter(tags=["audio"])


@router.post(
    "/v1/audio/transcriptions",
    response_model=Transcription | VerboseTranscription,
    responses={200: {"content": {"text/plain": {}, sse.CONTENT_TYPE: {}}, "description": "In the asked format."}},
    openapi_extra=documented(TranscriptionRequest),
)
async def create_transcription(request: Request, state: State) -> Response:
    """Transcribe an audio file in the language that it is spoken in."""
    async with submitted(request, TranscriptionRequest) as (form, file):
        _refuse_diarization(form)
        engine = await state.pool.transcription(form.model)
        recording = await decoded(file, state)
    if form.stream:
        events = sse.with_errors_in_band(await started(_events(engine, recording, form)))
        headers = sse.HEADERS | recording.timing_headers(finished=False)
        return StreamingResponse(events, media_type=sse.CONTENT_TYPE, headers=headers)
    heard = await engine.transcribe(recording.pcm, _options(form), _activity(form), recording.timing)
    return _answer(engine, recording, form, heard)


def _answer(engine: SttEngine, recording: Recording, form: TranscriptionRequest, heard: Transcript) -> Response:
    headers = recording.timing_headers(finished=True)
    match form.response_format:
        case "text":
            return PlainTextResponse(text_of(heard.segments) + "\n", headers=headers)
        case "srt" | "vtt" as subtitle_form:
            return PlainTextResponse(subtitles(heard.segments, subtitle_form), headers=headers)
        case "verbose_json":
            verbose = _verbose(engine, recording, form, heard)
            return JSONResponse(verbose.model_dump(exclude_none=True), headers=headers)
    return JSONResponse(_json(engine, recording, form, heard).model_dump(exclude_none=True), headers=headers)


async def _events(engine: SttEngine, recording: Recording, form: TranscriptionRequest) -> AsyncGenerator[bytes]:
    """A delta for each segment as soon as it is heard, then the whole."""
    segments: list[Segment] = []
    windows = engine.stream(recording.pcm, _options(form), _activity(form), recording.timing)
    try:
        async for heard in windows:
            for segment in heard.segments:
                # The deltas joined are the text of the last event, which has no space at its start.
                delta = segment.text if segments else segment.text.lstrip()
                logprobs = logprobs_of([segment]) if form.include else None
                segments.append(segment)
                yield sse.event(TranscriptTextDelta(delta=delta, logprobs=logprobs or None))
    finally:
        await windows.aclose()
    usage = _token_usage(engine, recording, form, segments)
    done = TranscriptTextDone(text=text_of(segments), logprobs=logprobs_of(segments) or None, usage=usage)
    yield sse.event(done)
    yield sse.DONE


def _json(
    engine: SttEngine,
    recording: Recording,
    form: TranscriptionRequest,
    heard: Transcript,
) -> Transcription:
    counts_tokens = form.model.startswith(TOKEN_COUNTING_PREFIX)
    gives_logprobs = form.include and engine.backend.supports("logprobs")
    usage = _token_usage(engine, recording, form, heard.segments) if counts_tokens else recording.duration_usage()
    return Transcription(
        text=text_of(heard.segments),
        languages=[DetectedLanguage(code=heard.language)] if heard.language else None,
        logprobs=logprobs_of(heard.segments) if gives_logprobs else None,
        usage=usage,
    )


def _verbose(
    engine: SttEngine, recording: Recording, form: TranscriptionRequest, heard: Transcript
) -> VerboseTranscription:
    gives_words = form.wants_words and engine.backend.supports("words")
    return VerboseTranscription(
        language=name_of(heard.language or ""),
        duration=recording.seconds,
        text=text_of(heard.segments),
        segments=verbose_segments(heard.segments) if form.wants_segments else None,
        words=verbose_words(heard.segments) if gives_words else None,
        usage=recording.duration_usage(),
    )


def _options(form: TranscriptionRequest) -> TranscriptionOptions:
    return TranscriptionOptions(
        language=code_of(form.language) if form.language else None,
        languages=tuple(code_of(language) for language in form.languages),
        prompt=form.prompt,
        keywords=tuple(form.keywords),
        temperature=form.temperature,
        words=form.wants_words,
        logprobs=bool(form.include),
    )


def _activity(form: TranscriptionRequest) -> VoiceActivity:
    strategy = form.chunking_strategy
    if not isinstance(strategy, ServerVad):
        return AUTO
    return VoiceActivity(strategy.threshold, strategy.prefix_padding_ms, strategy.silence_duration_ms)


def _token_usage(
    engine: SttEngine, recording: Recording, form: TranscriptionRequest, segments: Sequence[Segment]
) -> TokenUsage:
    prompt = " ".join([form.prompt or "", *form.keywords]).strip()
    return token_usage(engine, prompt, recording.seconds, segments)


def _refuse_diarization(form: TranscriptionRequest) -> None:
    if form.response_format == "diarized_json":
        message = (
            "response_format: no model here tells speakers apart; ask for verbose_json to get segments with times."
        )
        raise InvalidRequest(message, param="response_format")
