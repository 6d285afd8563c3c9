"""What a checkpoint is: a model that speaks, one that transcribes, or neither.

Reads config.json and the name, never the weights and never code of the checkpoint.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_audio import registry

Kind = Literal["speech", "transcription"]

_KIND_OF_CATEGORY: dict[str | None, Kind] = {"tts": "speech", "stt": "transcription"}


@dataclass(frozen=True)
class Detection:
    """`kind` is None for anything that neither speaks nor transcribes; `family` is for people."""

    kind: Kind | None
    family: str
    ctranslate2: bool = False


def detect(folder: Path, name: str) -> Detection:
    """Look at a checkpoint folder. `name`, its hub id or folder name, decides only where the config does not."""
    config = _read_config(folder)
    if config is None:
        return Detection(None, "no model: it has no readable config.json")
    if (folder / "model.bin").is_file() and "alignment_heads" in config:
        return Detection("transcription", "whisper (CTranslate2)", ctranslate2=True)
    model_type = registry.model_type_from_config(config) or ""
    category = registry.classify_model(model_type, name)
    family = model_type or ", ".join(config.get("architectures") or ()) or "unknown"
    return Detection(_KIND_OF_CATEGORY.get(category), family)


def _read_config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
