"""GET /health and /ready: is it alive, and can it answer."""

import resource
import sys
import time
from importlib.metadata import version

from fastapi import APIRouter, Response

from app_state import State
from audio_converter import library_versions
from openai_api import Health, Readiness

NOT_READY = 503

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(state: State) -> Health:
    """Alive: answers also while the models load or work. `degraded` where a model failed to load."""
    models = state.pool.health()
    return Health(
        status="degraded" if any(model.error for model in models) else "ok",
        models=models,
        audio=library_versions(),
        voices=sum(len(engine.voices) for _, engine in state.pool.loaded_speech()),
        queue=state.pool.queue(),
        uptime_seconds=round(time.monotonic() - state.started, 3),
        peak_memory_bytes=_peak_memory_bytes(),
        version=version("speechd"),
    )


@router.get("/ready", responses={NOT_READY: {"model": Readiness}})
async def ready(state: State, response: Response) -> Readiness:
    """Ready: both default models are loaded and warm. 503 until then."""
    readiness = state.pool.readiness()
    if not readiness.ready:
        response.status_code = NOT_READY
    return readiness


def _peak_memory_bytes() -> int:
    """The largest resident memory so far. Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
