"""Voice presets: those that come with speechd, a user's own, and what is said of a bad one."""

import json
from pathlib import Path

import pytest

from errors import ConfigError, InvalidVoice
from phonemes import KOKORO_LANGUAGES
from voice_presets import SHIPPED_PRESETS, load_presets, resolve

OPENAI_VOICES = {
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx",
    "nova", "sage", "shimmer", "verse", "marin", "cedar",
}  # fmt: skip
KOKORO_VOICES = {file.stem for file in (SHIPPED_PRESETS.parent / "voices" / "kokoro").glob("*.safetensors")}


def write(folder: Path, name: str, preset: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(preset), encoding="utf-8")


def test_every_openai_voice_stands_for_a_kokoro_voice() -> None:
    presets = load_presets(SHIPPED_PRESETS)
    assert set(presets) >= OPENAI_VOICES
    for preset in presets.values():
        assert preset.voice in KOKORO_VOICES
        assert preset.description
    assert len({presets[name].voice for name in OPENAI_VOICES}) == len(OPENAI_VOICES)


def test_there_are_54_kokoro_voices_each_of_a_known_language() -> None:
    assert len(KOKORO_VOICES) == 54
    assert {voice[0] for voice in KOKORO_VOICES} == set(KOKORO_LANGUAGES)


def test_a_users_own_preset(tmp_path: Path) -> None:
    write(tmp_path, "narrator", {"name": "narrator", "voice": "bm_lewis"})
    presets = load_presets(SHIPPED_PRESETS, tmp_path)
    assert resolve("narrator", presets, ["bm_lewis"]) == "bm_lewis"


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"name": "x"}, "x.json: voice: field required"),
        ({"name": "x", "voice": "a", "speeed": 1}, "x.json: speeed: extra inputs are not permitted"),
        ({"name": "x", "voice": 5}, "x.json: voice: input should be a valid string"),
        ({"name": "../x", "voice": "a"}, "x.json: name: "),
        ({"name": "alloy", "voice": "a"}, "x.json: name: 'alloy' is the name of another preset"),
        ([1], "x.json: the file: "),
    ],
)
def test_a_bad_preset_is_named_with_its_key(tmp_path: Path, preset: object, message: str) -> None:
    write(tmp_path, "x", preset)
    with pytest.raises(ConfigError, match=message):
        load_presets(SHIPPED_PRESETS, tmp_path)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match=r"x\.json: the file: "):
        load_presets(tmp_path)


def test_resolving_names() -> None:
    presets = load_presets(SHIPPED_PRESETS)
    assert resolve("alloy", presets, ["af_alloy"]) == "af_alloy"
    assert resolve("af_sky", presets, ["af_sky"]) == "af_sky"
    assert resolve("conversational_a", presets, []) == "conversational_a"
    with pytest.raises(InvalidVoice, match=r"Did you mean .*af_sky"):
        resolve("af_ski", presets, ["af_sky"])
    with pytest.raises(InvalidVoice, match="no voice 'zzz'"):
        resolve("zzz", presets, ["af_sky"])
