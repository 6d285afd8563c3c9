"""The wire contract: requests and responses of the OpenAI audio API, as far as speechd answers it.

Covers speech, transcriptions, models, voices, health and errors. Values that depend on settings (the length
of the text) or on what is loaded (voices, models) are checked where those are known, not here.
"""

from typing import Annotated, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, StrictStr, field_validator

from errors import BadRequest, InvalidAudio, InvalidFormat, InvalidInput, InvalidLanguage, InvalidSpeed, InvalidVoice

SPEED_MIN, SPEED_MAX = 0.25, 4.0

# What an OpenAI client may ask for by name. All of them mean the local default of that kind.
OPENAI_SPEECH_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
OPENAI_TRANSCRIPTION_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
)

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
TranscriptionFormat = Literal["json", "text"]

# A wrong value in one of these fields has an error code of its own; all others are `invalid_request`.
ERROR_OF_FIELD: dict[str, type[BadRequest]] = {
    "input": InvalidInput,
    "voice": InvalidVoice,
    "response_format": InvalidFormat,
    "speed": InvalidSpeed,
    "file": InvalidAudio,
    "language": InvalidLanguage,
}


class VoiceReference(BaseModel):
    """A voice by its id, the form that OpenAI gives custom voices."""

    id: StrictStr


class SpeechRequest(BaseModel):
    """Body of POST /v1/audio/speech. Unknown fields are tolerated: clients send extras."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr = Field(description="tts-1, tts-1-hd, gpt-4o-mini-tts, or the id of a local model")
    input: StrictStr = Field(description="The text to speak.")
    voice: StrictStr | VoiceReference | None = Field(
        None, description="An OpenAI voice, a voice of the model, or a preset. Default: SPEECHD_DEFAULT_VOICE."
    )
    response_format: SpeechFormat | None = Field(None, description="Default: SPEECHD_DEFAULT_FORMAT (mp3).")
    speed: Annotated[float, Field(strict=True, ge=SPEED_MIN, le=SPEED_MAX)] = 1.0

    @field_validator("input")
    @classmethod
    def _has_text(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("there is no text to speak")
        return value

    @property
    def voice_name(self) -> str | None:
        """The name or id of the voice, None where the request leaves it to the server."""
        return self.voice.id if isinstance(self.voice, VoiceReference) else self.voice


class TranscriptionRequest(BaseModel):
    """The text fields of the form of POST /v1/audio/transcriptions; `file` is handled apart."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(description="whisper-1, gpt-4o-transcribe, or the id of a local model")
    language: str | None = Field(None, description="ISO-639-1 code of the spoken language; detected where it is absent")
    prompt: str | None = Field(None, description="Text that biases the words, in the language of the audio.")
    response_format: TranscriptionFormat = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0


class DurationUsage(BaseModel):
    """Whole seconds of audio, rounded up."""

    type: Literal["duration"] = "duration"
    seconds: int


class DetectedLanguage(BaseModel):
    code: str


class Transcription(BaseModel):
    """Answer of POST /v1/audio/transcriptions with response_format=json."""

    text: str
    languages: list[DetectedLanguage] | None = None
    usage: DurationUsage


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Voice(BaseModel):
    """One voice. Everything but `id` and `name` is an extension."""

    id: str
    name: str
    language: str | None = None
    gender: str | None = None
    model: str | None = None
    description: str | None = None
    aliases: list[str] = Field(default_factory=list)


class VoiceList(BaseModel):
    """The same list under both names that clients look for."""

    object: Literal["list"] = "list"
    data: list[Voice]
    voices: list[Voice]


class ModelHealth(BaseModel):
    id: str
    kind: Literal["speech", "transcription"]
    backend: str
    device: str
    loaded: bool
    sample_rate: int | None
    memory_bytes: int | None
    error: str | None


class QueueHealth(BaseModel):
    active: int
    waiting: int


class Health(BaseModel):
    status: Literal["ok", "degraded"]
    models: list[ModelHealth]
    audio: dict[str, str]
    voices: int
    queue: QueueHealth
    uptime_seconds: float
    peak_memory_bytes: int
    version: str


class Readiness(BaseModel):
    ready: bool
    detail: str


class ErrorBody(TypedDict):
    """What stands under "error". All four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    error: ErrorBody
