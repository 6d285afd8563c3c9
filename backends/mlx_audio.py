"""Models through mlx-audio on MLX: the engine on Apple Silicon and CUDA; on a CPU it runs with mlx_cpu's help.

Any checkpoint that mlx-audio loads is served; here is what loads them, and what speaks. Kokoro has a class of its
own, because its pipeline in mlx-audio prints, downloads and forgets its voices on each call. Everything here must run
on the one thread that owns MLX.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlx_cpu
from errors import InternalError
from phonemes import Phonemizer

from . import hardware, kokoro_voices
from .protocols import (
    ModelVoice,
    Pcm,
    SpeechBackend,
    SpeechOptions,
    Spoken,
    TranscriptionBackend,
)

NAME = "mlx_audio"

# What the models of mlx-audio call the description of how to speak.
INSTRUCTION_PARAMETERS = ("instruct", "instruction", "instructions")

log = logging.getLogger("speechd.mlx_audio")


def load_speech(checkpoint: Path, device: str, cache_dir: Path) -> SpeechBackend:
    """Load a checkpoint folder that speaks, by mlx-audio's own loader."""
    _require_safetensors(checkpoint)
    used = _prepare_mlx(device, cache_dir)
    from mlx_audio.tts.utils import load_model

    model = load_model(checkpoint)
    if _family(model) == "kokoro":
        return MlxKokoro(model, checkpoint, used)
    return MlxSpeech(model, used)


def load_transcription(checkpoint: Path, device: str, cache_dir: Path) -> TranscriptionBackend:
    """Load a checkpoint folder that transcribes, by mlx-audio's own loader."""
    _require_safetensors(checkpoint)
    used = _prepare_mlx(device, cache_dir)
    from mlx_audio.stt.utils import load_model

    from .mlx_transcription import MlxTranscription, MlxWhisper

    model = load_model(checkpoint)
    if _family(model) == "whisper":
        return MlxWhisper(model, used)
    return MlxTranscription(model, used)


class MlxKokoro:
    """Kokoro: phonemes made by speechd, one call of the model for each piece of them."""

    name = NAME
    speed_range = (0.5, 2.0)  # beyond it the durations, whole frames for each phoneme, lose their proportions
    takes_instructions = False

    def __init__(self, model: Any, checkpoint: Path, device: str) -> None:
        self.device = device
        self.sample_rate = int(model.sample_rate)
        self._model = model
        self._phonemizer = Phonemizer(model.config.vocab)
        self._voice_files = {file.stem: file for file in sorted((checkpoint / "voices").glob("*.safetensors"))}
        self._styles: dict[str, Any] = {}

    def voices(self) -> Sequence[ModelVoice]:
        return [kokoro_voices.model_voice(voice) for voice in self._voice_files]

    def language_of(self, voice: str) -> str | None:
        return kokoro_voices.model_voice(voice).language

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        voice = options.voice or next(iter(self._voice_files))
        style = self._style(voice)
        for phonemes in self._phonemizer.pieces(text, kokoro_voices.language_letter(voice)):
            # One style vector per number of phonemes, so n phonemes use row n - 1.
            spoken = self._model(phonemes, style[len(phonemes) - 1], options.speed, return_output=True)
            yield Spoken(_to_pcm(spoken.audio), input_tokens=len(phonemes))

    def memory_bytes(self) -> int | None:
        return weight_bytes(self._model)

    def _style(self, voice: str) -> Any:
        """float32, shape (510, 1, 256); read once per voice."""
        if voice not in self._styles:
            import mlx.core as mx

            packs: Any = mx.load(str(self._voice_files[voice]))
            self._styles[voice] = packs["voice"].astype(mx.float32)
        return self._styles[voice]


class MlxSpeech:
    """Any other model that speaks: its `generate` is given what its signature takes."""

    name = NAME

    def __init__(self, model: Any, device: str) -> None:
        self.device = device
        self.sample_rate = int(model.sample_rate)
        self._model = model
        self._parameters = inspect.signature(model.generate).parameters
        self.speed_range = (0.25, 4.0) if "speed" in self._parameters else (1.0, 1.0)
        self.takes_instructions = any(name in self._parameters for name in INSTRUCTION_PARAMETERS)

    def voices(self) -> Sequence[ModelVoice]:
        return []

    def language_of(self, voice: str) -> str | None:  # noqa: ARG002  # the protocol's signature
        return None

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        wanted: dict[str, Any] = {"speed": options.speed, "verbose": False, "stream": False}
        if options.voice is not None:
            wanted["voice"] = options.voice
        if options.instructions is not None:
            wanted |= dict.fromkeys(INSTRUCTION_PARAMETERS, options.instructions)
        results = self._model.generate(text=text, **accepted(wanted, self._parameters))
        for result in results:
            yield Spoken(_to_pcm(result.audio), input_tokens=int(result.token_count))

    def memory_bytes(self) -> int | None:
        return weight_bytes(self._model)


def _require_safetensors(checkpoint: Path) -> None:
    """mlx-audio would take other forms of weights too; speechd loads only the one that can hold nothing but numbers."""
    if next(checkpoint.rglob("*.safetensors"), None) is None:
        raise InternalError(f"{checkpoint.name} holds no weights in safetensors.")


def _prepare_mlx(device: str, cache_dir: Path) -> str:
    """Make MLX ready on this thread; returns the device that it runs on."""
    best = hardware.mlx_device()
    used = best if device == "auto" else device
    if used not in ("cpu", best):
        raise InternalError(f"MLX has no {used} device here, only {best}.")
    if used == "cpu":
        mlx_cpu.accelerate(cache_dir)
    import mlx.core as mx
    import transformers

    transformers.logging.set_verbosity_error()  # it warns of things that no user can act on
    mx.set_default_device(mx.cpu if used == "cpu" else mx.gpu)
    return used


def _family(model: Any) -> str:
    """ "kokoro" for a class of mlx_audio.tts.models.kokoro."""
    path = type(model).__module__.split(".")
    return path[3] if path[:1] == ["mlx_audio"] and len(path) > 3 else ""


def accepted(wanted: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Those of the arguments that a signature names."""
    return {name: value for name, value in wanted.items() if name in parameters}


def _to_pcm(audio: Any) -> Pcm:
    """An MLX array of any float type and shape (samples,) or (1, samples) → float32, shape (samples,)."""
    import mlx.core as mx

    return np.array(audio.astype(mx.float32), dtype=np.float32).reshape(-1)


def weight_bytes(model: Any) -> int:
    from mlx.utils import tree_flatten

    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))
