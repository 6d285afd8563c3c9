"""The wire contract: requests and responses of the OpenAI audio API, as far as speechd answers it.

Covers speech, transcriptions, translations, models, voices, health and errors. Values that depend on settings (the
length of the text) or on what is loaded (voices, models) are checked where those are known, not here.
"""

from typing import Annotated, Literal, Self, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from errors import (
    BadRequest,
    InvalidAudio,
    InvalidFormat,
    InvalidInput,
    InvalidLanguage,
    InvalidSpeed,
    InvalidVoice,
    SpeechdError,
)

SPEED_MIN, SPEED_MAX = 0.25, 4.0

# What an OpenAI client may ask for by name. All of them mean the local default of that kind.
OPENAI_SPEECH_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
OPENAI_TRANSCRIPTION_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
TranslationFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
TranscriptionFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
STREAMING_FORMATS = ("json", "text")

MAX_INSTRUCTIONS_LENGTH = 4096  # characters
MAX_KNOWN_SPEAKERS = 4

# A wrong value in one of these fields has an error code of its own; all others are `invalid_request`.
ERROR_OF_FIELD: dict[str, type[BadRequest]] = {
    "input": InvalidInput,
    "voice": InvalidVoice,
    "response_format": InvalidFormat,
    "speed": InvalidSpeed,
    "file": InvalidAudio,
    "language": InvalidLanguage,
    "languages": InvalidLanguage,
}


def _unicode(text: str) -> str:
    """JSON can hold half of a surrogate pair; no encoder, and no model, can take it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds a character that is not Unicode") from error
    return text


Text = Annotated[StrictStr, AfterValidator(_unicode)]


class VoiceReference(BaseModel):
    """A voice by its id, the form that OpenAI gives custom voices."""

    id: Text


class SpeechRequest(BaseModel):
    """Body of POST /v1/audio/speech. Unknown fields are tolerated: clients send extras."""

    model_config = ConfigDict(extra="ignore")

    model: Text = Field(description="tts-1, tts-1-hd, gpt-4o-mini-tts, or the id of a local model")
    input: Text = Field(description="The text to speak, up to SPEECHD_MAX_INPUT_LENGTH (4096) characters.")
    voice: Text | VoiceReference | None = Field(
        None, description="An OpenAI voice, a voice of the model, or a preset. Default: SPEECHD_DEFAULT_VOICE."
    )
    response_format: SpeechFormat | None = Field(None, description="Default: SPEECHD_DEFAULT_FORMAT (mp3).")
    speed: Annotated[float, Field(strict=True, ge=SPEED_MIN, le=SPEED_MAX)] | None = Field(
        None, description="The pitch stays. Default: 1."
    )
    instructions: Annotated[Text, Field(max_length=MAX_INSTRUCTIONS_LENGTH)] | None = Field(
        None, description="How to speak, for models that take it; others ignore it."
    )
    stream_format: Literal["audio", "sse"] | None = Field(None, description="The sound itself (default), or events.")
    stream: StrictBool | None = Field(
        None, description="Extension: false answers when all is spoken, with a length. The default streams."
    )

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


class SpeechUsage(BaseModel):
    """Tokens that the model read (for Kokoro: phonemes), and frames of 25 ms that it spoke."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class SpeechAudioDelta(BaseModel):
    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str = Field(description="Base64 of the next bytes of the file, in the asked format.")


class SpeechAudioDone(BaseModel):
    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: SpeechUsage


class ServerVad(BaseModel):
    """Where the audio is cut: voice activity by these thresholds. Values as OpenAI documents them."""

    type: Literal["server_vad"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=10_000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=0, le=10_000)] = 200


def _strategy_of(value: object) -> str:
    return "server_vad" if isinstance(value, dict | ServerVad) else "auto"


ChunkingStrategy = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[ServerVad, Tag("server_vad")], Discriminator(_strategy_of)
]

SpeakerReference = Annotated[str, StringConstraints(pattern=r"^data:[\w.+-]+/[\w.+-]+;base64,")]


class AudioRequest(BaseModel):
    """What the forms of transcriptions and translations have in common; `file` is handled apart."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(min_length=1)] = Field(description="whisper-1, …, or the id of a local model")
    prompt: str | None = Field(None, description="Text that biases the words, in the language of the audio.")
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0


class TranslationRequest(AudioRequest):
    """The text fields of the form of POST /v1/audio/translations."""

    response_format: TranslationFormat = "json"


class TranscriptionRequest(AudioRequest):
    """The text fields of the form of POST /v1/audio/transcriptions. Lists arrive as repeated `name[]`."""

    language: str | None = Field(None, description="Code or English name of the spoken language; detected if absent.")
    languages: list[str] = Field([], description="Several that it may be; the most probable of them is taken.")
    keywords: list[str] = Field([], max_length=100, description="Words that are likely to occur.")
    response_format: TranscriptionFormat = "json"
    timestamp_granularities: list[Literal["word", "segment"]] = Field([], description="Only with verbose_json.")
    include: list[Literal["logprobs"]] = Field([], description="Only with json.")
    stream: bool = Field(False, description="Events while the audio is being worked on. Only with json and text.")
    chunking_strategy: ChunkingStrategy | None = None
    known_speaker_names: list[str] = Field([], max_length=MAX_KNOWN_SPEAKERS)
    known_speaker_references: list[SpeakerReference] = Field([], max_length=MAX_KNOWN_SPEAKERS)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """What each field goes with. The type of such an error is the name of the field."""
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise PydanticCustomError("timestamp_granularities", "goes only with response_format=verbose_json")
        if self.include and self.response_format != "json":
            raise PydanticCustomError("include", "logprobs go only with response_format=json")
        if self.stream and self.response_format not in STREAMING_FORMATS:
            raise PydanticCustomError("stream", "goes only with response_format=json or text")
        if len(self.known_speaker_names) != len(self.known_speaker_references):
            raise PydanticCustomError("known_speaker_references", "there must be as many as known_speaker_names")
        return self

    @property
    def wants_words(self) -> bool:
        return "word" in self.timestamp_granularities

    @property
    def wants_segments(self) -> bool:
        """`segment` is the default; `word` alone leaves the segments out."""
        return self.timestamp_granularities != ["word"]


class InputTokenDetails(BaseModel):
    text_tokens: int
    audio_tokens: int


class TokenUsage(BaseModel):
    """Tokens of the prompt and of the text, by the model's own tokenizer; audio in the encoder's frames of 20 ms."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokenDetails


class DurationUsage(BaseModel):
    """Whole seconds of audio, rounded up."""

    type: Literal["duration"] = "duration"
    seconds: int


Usage = TokenUsage | DurationUsage


class DetectedLanguage(BaseModel):
    code: str


class Logprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class Transcription(BaseModel):
    """Answer with response_format=json."""

    text: str
    languages: list[DetectedLanguage] | None = None
    logprobs: list[Logprob] | None = None
    usage: Usage


class TranscriptionSegment(BaseModel):
    """Times in seconds. What a model does not give is absent."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float | None
    avg_logprob: float | None
    compression_ratio: float | None
    no_speech_prob: float | None


class TranscriptionWord(BaseModel):
    word: str
    start: float
    end: float


class VerboseTranscription(BaseModel):
    """Answer with response_format=verbose_json."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[TranscriptionSegment] | None = None
    words: list[TranscriptionWord] | None = None
    usage: DurationUsage


class VerboseTranslation(BaseModel):
    """Answer of a translation with response_format=verbose_json."""

    task: Literal["translate"] = "translate"
    language: Literal["english"] = "english"
    duration: float
    text: str
    segments: list[TranscriptionSegment]


class Translation(BaseModel):
    text: str


class TranscriptTextDelta(BaseModel):
    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[Logprob] | None = None


class TranscriptTextDone(BaseModel):
    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    logprobs: list[Logprob] | None = None
    usage: TokenUsage


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


def error_in_openai_form(error: SpeechdError) -> ErrorResponse:
    """The body of an error response, and the event that reports a failure in a stream."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
