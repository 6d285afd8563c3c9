"""From a model of the catalogue to a backend with its weights in memory.

Blocks, and must run on the thread that will use the backend. Heavy libraries are imported here, when first needed.
"""

import logging
from pathlib import Path

from huggingface_hub import snapshot_download

import embedded_models
from backends.protocols import SpeechBackend, TranscriptionBackend
from config import Settings
from embedded_models import CheckpointFormat
from model_catalog import ModelSpec

FORMAT_OF_BACKEND: dict[str, CheckpointFormat] = {
    "mlx_audio": "mlx",
    "kokoro_onnx": "onnx",
    "faster_whisper": "ctranslate2",
}

# Weights and data only: no pickles, and no code, which a checkpoint of the hub may bring.
HUB_FILES = ("*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.yaml", "model.bin")

log = logging.getLogger("speechd.models")


def load_speech(spec: ModelSpec, settings: Settings) -> SpeechBackend:
    """Load a model that speaks. Raises EmbeddedModelError, or what its library raises."""
    if spec.backend == "kokoro_onnx":
        from backends.kokoro_onnx import KokoroOnnxBackend

        return KokoroOnnxBackend(checkpoint(spec, settings))
    from backends import mlx_audio

    return mlx_audio.load_speech(checkpoint(spec, settings), settings.device, settings.cache_dir)


def load_transcription(spec: ModelSpec, settings: Settings) -> TranscriptionBackend:
    """Load a model that transcribes. Raises EmbeddedModelError, or what its library raises."""
    if spec.backend == "faster_whisper":
        from backends.faster_whisper import FasterWhisperBackend

        return FasterWhisperBackend(checkpoint(spec, settings), settings.device)
    from backends import mlx_audio

    return mlx_audio.load_transcription(checkpoint(spec, settings), settings.device, settings.cache_dir)


def checkpoint(spec: ModelSpec, settings: Settings, progress: embedded_models.Progress | None = None) -> Path:
    """The folder of a model's weights: converted, downloaded, or as it lies there."""
    if spec.embedded is not None:
        return embedded_models.checkpoint(spec.embedded, FORMAT_OF_BACKEND[spec.backend], settings.cache_dir, progress)
    if spec.folder is not None:
        return spec.folder
    log.info("fetching %s from the model hub, unless it is in its cache", spec.hub_id)
    return Path(snapshot_download(str(spec.hub_id), allow_patterns=list(HUB_FILES)))
