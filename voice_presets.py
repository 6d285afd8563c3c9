"""Named voices: presets/*.json, one voice a file. The OpenAI voices come with speechd as such files.

A preset is data: it names a voice of the model and says what it is like. It can't name code, a path or a URL.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from errors import ConfigError, InvalidVoice

SHIPPED_PRESETS = Path(__file__).parent / "presets"
NEAR_NAMES = 5  # how many near names the message about an unknown voice lists


class VoicePreset(BaseModel):
    """One file of presets/. An unknown key is refused, so that a typing error does not go unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    description: str = ""
    voice: str = Field(min_length=1, description="the voice of the model that this name stands for")


def load_presets(*folders: Path) -> dict[str, VoicePreset]:
    """Read every preset of the folders, by name. ConfigError names the file and the key that is wrong."""
    presets: dict[str, VoicePreset] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"SPEECHD_PRESETS_DIR={str(folder)!r}: should be a folder")
        for file in sorted(folder.glob("*.json")):
            preset = _read(file)
            if preset.name in presets:
                raise ConfigError(f"{file}: name: {preset.name!r} is the name of another preset")
            presets[preset.name] = preset
    return presets


def resolve(name: str, presets: Mapping[str, VoicePreset], model_voices: Sequence[str]) -> str:
    """The model's own voice for a name that a request carries.

    A model that lists no voices is given the name as it is: only it knows what it accepts.
    Raises InvalidVoice, which lists near names.
    """
    voice = presets[name].voice if name in presets else name
    if not model_voices or voice in model_voices:
        return voice
    raise InvalidVoice(_unknown_voice(name, [*presets, *model_voices]), param="voice")


def _unknown_voice(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=NEAR_NAMES, cutoff=0.4)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return f"There is no voice {name!r}. {hint}GET /v1/audio/voices lists all of them."


def _read(file: Path) -> VoicePreset:
    try:
        return VoicePreset.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"])) or "the file"
        raise ConfigError(f"{file}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from error
