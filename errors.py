"""Every error that speechd raises on purpose, with its HTTP status, its OpenAI `type` and its `code`.

SpeechdError
├── BadRequest (400, invalid_request_error)
│   ├── InvalidInput          invalid_input     the text is empty or can't be spoken
│   ├── InputTooLong          input_too_long    the text is over SPEECHD_MAX_INPUT_LENGTH
│   ├── InvalidVoice          invalid_voice     no such voice; the message lists near names
│   ├── InvalidFormat         invalid_format    no such response format
│   ├── InvalidSpeed          invalid_speed     speed outside its range
│   ├── InvalidAudio          invalid_audio     the upload is empty, not audio, or has no sound
│   ├── InvalidLanguage       invalid_language  no such language, or the model does not know it
│   └── InvalidRequest        invalid_request   anything else that is wrong with a request
├── NotFound (404, invalid_request_error)
│   ├── ModelNotFound         model_not_found
│   └── RouteNotFound         not_found
├── NotYours (403)            (no code)          a model of OpenAI's or of the machine's owner, to be deleted
├── MethodNotAllowed (405)    method_not_allowed
├── PayloadTooLarge (413)     payload_too_large
├── ServerFault (500, server_error)
│   ├── InternalError         internal_error     an engine failed; its own words are in the log
│   └── ConversionFailed      conversion_failed  FFmpeg could not encode what a model made
├── Unavailable (503, server_error)
│   ├── ModelNotReady         model_not_ready    the model is loading, or failed to load
│   └── ShuttingDown          shutting_down
└── StartupError              ends the start with one line and exit code 2; never a response
    ├── ConfigError           a setting has a wrong value
    └── EmbeddedModelError    weights are missing, damaged, or can't be written to the cache

An error becomes a response in one place: `server.error_response`.
"""

from collections.abc import Mapping
from typing import ClassVar


class SpeechdError(Exception):
    """The root. `message` is for the client: no path, no text of a model or of FFmpeg."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


class BadRequest(SpeechdError):
    """The client sent something that can't be answered as it stands."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidInput(BadRequest):
    """A client whose text is empty, or holds nothing that can be spoken."""

    code = "invalid_input"


class InputTooLong(BadRequest):
    """A client whose text is over the limit."""

    code = "input_too_long"


class InvalidVoice(BadRequest):
    """A client that names a voice which the model does not have."""

    code = "invalid_voice"


class InvalidFormat(BadRequest):
    """A client that asks for a response format which does not exist."""

    code = "invalid_format"


class InvalidSpeed(BadRequest):
    """A client that asks for a speed outside 0.25 to 4."""

    code = "invalid_speed"


class InvalidAudio(BadRequest):
    """A client whose upload is empty, is not audio, or has no audio stream."""

    code = "invalid_audio"


class InvalidLanguage(BadRequest):
    """A client that names a language which does not exist or which the model does not know."""

    code = "invalid_language"


class InvalidRequest(BadRequest):
    """A client whose request is malformed in any other way."""


class NotFound(SpeechdError):
    """A client that asks for something which is not there."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """A client that names an unknown model."""

    code = "model_not_found"


class RouteNotFound(NotFound):
    """A client that calls an unknown path."""


class NotYours(SpeechdError):
    """A client that wants to delete what it did not make; OpenAI answers so for its own models."""

    status = 403
    type = "invalid_request_error"
    code = None


class MethodNotAllowed(SpeechdError):
    """A client that calls a known path with the wrong method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class PayloadTooLarge(SpeechdError):
    """A client whose upload is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class ServerFault(SpeechdError):
    """A client whose good request failed here."""


class InternalError(ServerFault):
    """A client whose request met a failing engine or a bug."""


class ConversionFailed(ServerFault):
    """A client whose speech was made but could not be encoded."""

    code = "conversion_failed"


class Unavailable(SpeechdError):
    """A client that should try again."""

    status = 503
    code = "model_not_ready"


class ModelNotReady(Unavailable):
    """A client that comes while a model is loading, or after it failed to load."""


class ShuttingDown(Unavailable):
    """A client that comes while the server stops."""

    code = "shutting_down"


class StartupError(SpeechdError):
    """The person who starts the server. The message is the one line that they see."""


class ConfigError(StartupError):
    """A setting that has a wrong value: names the key, the value and what it should be."""


class EmbeddedModelError(StartupError):
    """Embedded weights that are missing or damaged, or a cache that can't hold them."""
