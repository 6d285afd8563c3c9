"""The FastAPI app: its life, its middleware, its routes, and the one place where an error becomes a response."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import model_loading
from app_state import AppState
from config import Settings
from errors import BadRequest, InternalError, InvalidRequest, MethodNotAllowed, RouteNotFound, SpeechdError
from middleware import BodyLimit, RequestId
from model_catalog import ModelCatalog
from model_pool import ModelPool
from openai_api import ERROR_OF_FIELD, TranscriptionRequest, error_in_openai_form
from routes import health, models, speech, transcriptions, translations, voices
from voice_presets import SHIPPED_PRESETS, load_presets

log = logging.getLogger("speechd.server")


def create_app(settings: Settings, pool: ModelPool | None = None) -> FastAPI:
    """The app. Raises ConfigError where the settings or a preset can't work. Tests bring a pool of their own."""
    pool = pool or ModelPool(
        settings, ModelCatalog(settings), model_loading.load_speech, model_loading.load_transcription
    )
    folders = [SHIPPED_PRESETS] + ([settings.presets_dir] if settings.presets_dir else [])
    state = AppState(settings=settings, pool=pool, presets=load_presets(*folders))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        pool.start_loading_defaults()
        yield
        await pool.close()

    app = FastAPI(
        title="speechd",
        version=version("speechd"),
        summary="An OpenAI-compatible speech server for your own machine.",
        lifespan=lifespan,
    )
    app.state.speechd = state
    for route in (speech, transcriptions, translations, voices, models, health):
        app.include_router(route.router)
    app.add_exception_handler(SpeechdError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(BodyLimit, max_mib=settings.max_upload_mb)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-Generation-Time", "Server-Timing"],
        )
    app.add_middleware(RequestId)
    return app


def error_response(error: SpeechdError) -> JSONResponse:
    """An error in OpenAI's form: all four keys, always."""
    return JSONResponse(error_in_openai_form(error), status_code=error.status, headers=error.headers)


async def _on_our_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpeechdError)  # noqa: S101  # registered for this class
    return error_response(error)


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class
    return error_response(_bad_request(error.errors()))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What Starlette and FastAPI raise by themselves."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class
    if isinstance(error.__cause__, SpeechdError):
        # FastAPI turns whatever ends the reading of a body into a plain 400.
        return error_response(error.__cause__)
    path = request.url.path
    if error.status_code == RouteNotFound.status:
        return error_response(RouteNotFound(f"There is nothing at {path}. GET /docs shows what there is."))
    if error.status_code == MethodNotAllowed.status:
        message = f"{request.method} is not allowed for {path}."
        return error_response(MethodNotAllowed(message, headers=error.headers))
    return error_response(InvalidRequest(str(error.detail)))


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", exc_info=error)
    # This answer is given outside of our middleware, which would have set the id.
    headers = {"X-Request-ID": request.state.request_id}
    return error_response(InternalError("Something failed here; the server's log says what.", headers=headers))


def _bad_request(problems: Sequence[Any]) -> BadRequest:
    """The first thing that is wrong with a request, under the name of its field."""
    problem = problems[0]
    location = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
    if not location and problem["type"] in TranscriptionRequest.model_fields:
        location = [problem["type"]]  # fields that don't go together; see TranscriptionRequest
    # A union reports the member that failed after the field ("voice", "VoiceReference", "id").
    field = location[0] if location and problem["type"] != "json_invalid" else None
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        return InvalidRequest("The body is not valid JSON.")
    if field is None:
        return InvalidRequest("The body should be a JSON object, sent with Content-Type: application/json.")
    return ERROR_OF_FIELD.get(field, InvalidRequest)(f"{field}: {reason[0].lower()}{reason[1:]}", param=field)
