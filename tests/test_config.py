"""Settings: their sources, their defaults, and what a person reads when one is wrong."""

import logging
import re
from pathlib import Path

import pytest

from config import PREFIX, Settings, load_settings
from errors import ConfigError

REPOSITORY = Path(__file__).parent.parent


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    env_file = tmp_path / ".env"
    env_file.write_text(text, encoding="utf-8")
    return load_settings(env_file, environ or {})


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "none", {})
    assert (settings.host, settings.port, settings.default_format) == ("127.0.0.1", 8880, "mp3")
    assert settings.max_input_length == 4096


def test_the_file_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "SPEECHD_PORT=9000\nSPEECHD_DEFAULT_VOICE=bm_george\n").port == 9000


def test_origins_are_split_at_commas(tmp_path: Path) -> None:
    settings = load(tmp_path, "SPEECHD_CORS_ORIGINS=http://localhost:3000, https://a.example/\n")
    assert settings.cors_origins == ("http://localhost:3000", "https://a.example")


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHD_PORT", "9001")
    assert load(tmp_path, "SPEECHD_PORT=9000\n").port == 9001


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, "").port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEECHD_PORT=abc", r"SPEECHD_PORT='abc': .*integer"),
        ("SPEECHD_PORT=70000", r"SPEECHD_PORT='70000': .*less than or equal to 65535"),
        ("SPEECHD_TTS_BACKEND=foo", r"SPEECHD_TTS_BACKEND='foo': .*'auto', 'mlx_audio' or 'kokoro_onnx'"),
        ("SPEECHD_DEFAULT_FORMAT=mp4", r"SPEECHD_DEFAULT_FORMAT='mp4': .*'mp3'"),
        ("SPEECHD_CORS_ORIGINS=localhost", r"SPEECHD_CORS_ORIGINS='localhost': 'localhost' should be an origin"),
        ("SPEECHD_MAX_INPUT_LENGTH=0", r"SPEECHD_MAX_INPUT_LENGTH='0': .*greater than or equal to 1"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_it_should_be(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, line + "\n")
    assert "\n" not in caught.value.message


def test_a_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 2: expected KEY=value, got 'hello there'"):
        load(tmp_path, "SPEECHD_PORT=1\nhello there\n")


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_settings(tmp_path, {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(tmp_path / "binary", {})


def test_an_unknown_key_gets_a_warning_with_the_nearest_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tmp_path, "SPEECHD_TTS_MODLE=x\nOTHER=1\n", {"SPEECHD_PROT": "1", "HOST": "x"})
    assert "SPEECHD_TTS_MODLE is ignored; the nearest known one is SPEECHD_TTS_MODEL" in caplog.text
    assert "SPEECHD_PROT is ignored; the nearest known one is SPEECHD_PORT" in caplog.text
    assert "OTHER" not in caplog.text


def test_env_example_shows_every_setting_with_its_default() -> None:
    text = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#?(SPEECHD_\w+)=(.*)$", text, flags=re.MULTILINE))
    assert set(shown) == {PREFIX + name.upper() for name in Settings.model_fields}
    defaults = Settings(_env_file=None)
    for key, value in shown.items():
        if value:
            assert str(getattr(defaults, key.removeprefix(PREFIX).lower())) == value, key
