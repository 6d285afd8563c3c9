"""What the routes share: made once by server.create_app, read by every request."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from config import Settings
from model_pool import ModelPool
from voice_presets import VoicePreset


@dataclass(frozen=True)
class AppState:
    settings: Settings
    pool: ModelPool
    presets: Mapping[str, VoicePreset]
    started: float = field(default_factory=time.monotonic)


def _app_state(request: Request) -> AppState:
    state: AppState = request.app.state.speechd
    return state


# A route takes `state: State` as a parameter.
State = Annotated[AppState, Depends(_app_state)]
