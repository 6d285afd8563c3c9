"""Which models there are, by name: the configured defaults, the embedded ones, and what lies in the hub cache.

Decides which backend runs which model. Loads nothing.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported lazily

from backends import hardware
from config import Settings
from embedded_models import EMBEDDED_MODELS
from errors import ConfigError, InvalidRequest, ModelNotFound
from model_detection import Detection, Kind, detect
from openai_api import OPENAI_SPEECH_MODELS, OPENAI_TRANSCRIPTION_MODELS

# What each kind's settings are called, and what its models do.
SETTING_OF_KIND: dict[Kind, str] = {"speech": "TTS", "transcription": "STT"}
VERB_OF_KIND: dict[Kind, str] = {"speech": "speaks", "transcription": "transcribes"}

CPU_BACKEND: dict[Kind, str] = {"speech": "kokoro_onnx", "transcription": "faster_whisper"}
MLX_BACKEND = "mlx_audio"


@dataclass(frozen=True)
class ModelSpec:
    """One model that can be loaded. Exactly one of `embedded`, `folder` and `hub_id` says where it comes from."""

    id: str
    kind: Kind
    backend: str
    owned_by: str
    embedded: str | None = None
    folder: Path | None = None
    hub_id: str | None = None


class ModelCatalog:
    """Names to models. Raises ConfigError at once where the settings name something that can't work."""

    def __init__(self, settings: Settings, hub_cache: Path | None = None) -> None:
        """`hub_cache`: where downloaded models lie, if not where huggingface_hub keeps them."""
        self._settings = settings
        self._hub_cache = hub_cache
        self.created = int(time.time())
        self._has_accelerator = settings.device != "cpu" and hardware.mlx_device() != "cpu"
        self.defaults: dict[Kind, ModelSpec] = {
            "speech": self._configured("speech", settings.tts_model),
            "transcription": self._configured("transcription", settings.stt_model),
        }
        self._check_device()
        embedded = [self._embedded(name) for name in EMBEDDED_MODELS]
        self._specs = {spec.id: spec for spec in (*embedded, *self.defaults.values())}
        self._aliases: dict[str, Kind] = dict.fromkeys(OPENAI_SPEECH_MODELS, "speech")
        self._aliases.update(dict.fromkeys(OPENAI_TRANSCRIPTION_MODELS, "transcription"))

    def ids(self) -> list[tuple[str, str]]:
        """(id, owner) of every model that a request may name: local ones first, then OpenAI's names."""
        local = [(spec.id, spec.owned_by) for spec in self._specs.values()]
        return local + [(alias, "openai-alias") for alias in self._aliases]

    def find(self, name: str, kind: Kind) -> ModelSpec:
        """The model that answers to a name in a request of this kind.

        Raises ModelNotFound for an unknown name, InvalidRequest for a model that does something else.
        """
        if name in self._aliases:
            self._require(kind, self._aliases[name], name)
            return self.defaults[kind]
        spec = self._specs.get(name) or self._in_hub_cache(name)
        if spec is None:
            raise unknown_model(name)
        self._require(kind, spec.kind, name)
        return spec

    def _require(self, wanted: Kind, found: Kind, name: str) -> None:
        if wanted != found:
            message = f"The model {name!r} {VERB_OF_KIND[found]}; this request needs one that {VERB_OF_KIND[wanted]}."
            raise InvalidRequest(message, param="model")

    def _in_hub_cache(self, name: str) -> ModelSpec | None:
        """A model that lies in the hub cache. Nothing is downloaded because a request names it."""
        if not _is_hub_id(name):
            return None
        found = self._detected_in_hub_cache(name)
        if found is None:
            return None
        if found.kind is None:
            message = f"The model {name!r} is no audio model but {found.family!r}; it can't be used here."
            raise InvalidRequest(message, param="model")
        backend = self._backend(found.kind, embedded=False, found=found)
        return ModelSpec(name, found.kind, backend, owned_by=name.partition("/")[0], hub_id=name)

    def _detected_in_hub_cache(self, name: str) -> Detection | None:
        """What a hub model is; None where it was not downloaded."""
        config_file = try_to_load_from_cache(name, "config.json", cache_dir=self._hub_cache)
        return detect(Path(config_file).parent, name) if isinstance(config_file, str) else None

    def _embedded(self, name: str) -> ModelSpec:
        kind = EMBEDDED_MODELS[name].kind
        return ModelSpec(name, kind, self._backend(kind, embedded=True), owned_by="speechd", embedded=name)

    def _configured(self, kind: Kind, name: str) -> ModelSpec:
        """The default of a kind: an embedded name, a folder, or a hub id."""
        if name in EMBEDDED_MODELS:
            if EMBEDDED_MODELS[name].kind != kind:
                raise _wrong_model(kind, name, f"this model {VERB_OF_KIND[EMBEDDED_MODELS[name].kind]}")
            return self._embedded(name)
        folder = Path(name).expanduser()
        if folder.is_dir():
            return self._configured_folder(kind, name, folder.resolve())
        if not _is_hub_id(name):
            names = ", ".join(model for model in EMBEDDED_MODELS if EMBEDDED_MODELS[model].kind == kind)
            raise _wrong_model(kind, name, f"should be an embedded model ({names}), a folder, or a hub id (owner/name)")
        found = self._detected_in_hub_cache(name)
        if found is not None and found.kind != kind:
            raise _wrong_model(kind, name, f"is {found.family!r}, not a model that {VERB_OF_KIND[kind]}")
        backend = self._backend(kind, embedded=False, found=found)
        return ModelSpec(name, kind, backend, owned_by=name.partition("/")[0], hub_id=name)

    def _configured_folder(self, kind: Kind, name: str, folder: Path) -> ModelSpec:
        found = detect(folder, folder.name)
        if found.kind != kind:
            raise _wrong_model(kind, name, f"is {found.family!r}, not a model that {VERB_OF_KIND[kind]}")
        backend = self._backend(kind, embedded=False, found=found)
        return ModelSpec(folder.name, kind, backend, owned_by="local", folder=folder)

    def _backend(self, kind: Kind, *, embedded: bool, found: Detection | None = None) -> str:
        """The backend that runs a model: what the settings say, or the fastest one here that can."""
        chosen = self._settings.tts_backend if kind == "speech" else self._settings.stt_backend
        is_ctranslate2 = found is not None and found.ctranslate2
        if chosen == "auto":
            cpu_can = embedded or is_ctranslate2
            mlx_first = self._has_accelerator and not is_ctranslate2
            return MLX_BACKEND if mlx_first or not cpu_can else CPU_BACKEND[kind]
        key = f"SPEECHD_{SETTING_OF_KIND[kind]}_BACKEND={chosen!r}"
        if chosen == "kokoro_onnx" and not embedded:
            raise ConfigError(f"{key}: speaks with the embedded kokoro-82m only; other models need 'mlx_audio'")
        if chosen == "faster_whisper" and found is not None and not is_ctranslate2:
            raise ConfigError(f"{key}: needs a Whisper in CTranslate2's form, this is {found.family!r}")
        if chosen == MLX_BACKEND and is_ctranslate2:
            raise ConfigError(f"{key}: can't run a model in CTranslate2's form; that needs 'faster_whisper'")
        return chosen

    def _check_device(self) -> None:
        device, best = self._settings.device, hardware.mlx_device()
        on_mlx = [spec for spec in self.defaults.values() if spec.backend == MLX_BACKEND]
        if on_mlx and device not in ("auto", "cpu", best):
            raise ConfigError(f"SPEECHD_DEVICE={device!r}: MLX has no such device here, only {best!r}")


def _is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name; nothing else is ever looked up in the hub's cache."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def unknown_model(name: str) -> ModelNotFound:
    """What every route says of a name that no model has."""
    message = f"The model {name!r} does not exist here. GET /v1/models lists those that do."
    return ModelNotFound(message, param="model")


def _wrong_model(kind: Kind, name: str, reason: str) -> ConfigError:
    return ConfigError(f"SPEECHD_{SETTING_OF_KIND[kind]}_MODEL={name!r}: {reason}")
