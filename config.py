"""Settings: one frozen object, read once at the start from the environment and `.env`.

Every key has the prefix SPEECHD_. Nothing below this module reads the environment.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from dotenv import parser as dotenv_parser
from pydantic import Field, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from errors import ConfigError

PREFIX = "SPEECHD_"
ENV_FILE = Path(".env")

ORIGIN = re.compile(r"https?://[^/\s]+")

log = logging.getLogger("speechd.config")

ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Settings(BaseSettings):
    """What the person who starts the server decided. Field names are the keys without the prefix."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8880, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")

    cache_dir: Path = Field(
        Path(platformdirs.user_cache_dir("speechd", appauthor=False)), description="converted models; can be deleted"
    )
    data_dir: Path = Field(
        Path(platformdirs.user_data_dir("speechd", appauthor=False)), description="what users store; is to be kept"
    )
    presets_dir: Path | None = Field(None, description="a folder of further voice presets (*.json)")

    tts_backend: Literal["auto", "mlx_audio", "kokoro_onnx"] = Field("auto", description="engine that speaks")
    tts_model: ModelName = Field("kokoro-82m", description="embedded name, hub id or folder of the model that speaks")
    stt_backend: Literal["auto", "mlx_audio", "faster_whisper"] = Field("auto", description="engine that transcribes")
    stt_model: ModelName = Field(
        "whisper-base", description="embedded name, hub id or folder of the model that transcribes"
    )
    device: Literal["auto", "cpu", "metal", "cuda"] = Field("auto", description="where the models run")

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="web pages that may call the server, as origins with commas between; none by default"
    )

    default_voice: str = Field("af_heart", min_length=1, description="voice of a speech model that is asked for none")
    default_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = Field(
        "mp3", description="format of speech where the request names none"
    )
    max_input_length: int = Field(4096, ge=1, description="characters of text in one request")
    max_upload_mb: int = Field(512, ge=1, description="size of one request, in MiB")
    max_audio_seconds: int = Field(3 * 3600, ge=1, description="length of one upload, in seconds")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """From the environment it comes as one string."""
        if not isinstance(value, str):
            return value
        origins = tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} should be an origin such as http://localhost:3000")
        return origins


def load_settings(env_file: Path = ENV_FILE, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; the environment wins over the file.

    Raises ConfigError, with one line for the person at the terminal, where `.env` can't be read or a value is wrong.
    Warns of keys that start with SPEECHD_ but that no setting has.
    """
    file_keys = _keys_of_env_file(env_file)
    _warn_of_unknown_keys({*file_keys, *environ})
    try:
        return Settings(_env_file=env_file)
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from error


def _keys_of_env_file(env_file: Path) -> list[str]:
    """The keys that the file sets; none where there is no file."""
    try:
        with env_file.open(encoding="utf-8") as stream:
            bindings = list(dotenv_parser.parse_stream(stream))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{env_file}: can't be read: {reason}") from error
    for binding in bindings:
        if binding.error:
            line = binding.original.string.strip()
            raise ConfigError(f"{env_file}, line {binding.original.line}: expected KEY=value, got {line!r}")
    return [binding.key for binding in bindings if binding.key]


def _warn_of_unknown_keys(keys: Iterable[str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for key in sorted(key for key in keys if key.upper().startswith(PREFIX)):
        if key.upper() in known:
            continue
        nearest = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0)
        log.warning("unknown setting %s is ignored; the nearest known one is %s", key, nearest[0])


def _first_problem(error: ValidationError) -> str:
    """One line: the key, the value that it has, and what it should be."""
    problem = error.errors()[0]
    key = PREFIX + str(problem["loc"][0]).upper()
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{key}={problem['input']!r}: {reason[0].lower()}{reason[1:]}"
