"""Names to models, and which backend runs which, as far as this machine decides it."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends import hardware
from config import Settings
from errors import ConfigError, InvalidRequest, ModelNotFound
from model_catalog import ModelCatalog
from model_detection import detect

on_plain_cpu = pytest.mark.skipif(hardware.mlx_device() != "cpu", reason="this machine runs MLX on a GPU")


def catalog(**settings: Any) -> ModelCatalog:
    return ModelCatalog(Settings(_env_file=None, **settings))


def checkpoint(folder: Path, config: dict[str, Any], *files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in files:
        (folder / name).write_bytes(b"")
    return folder


@on_plain_cpu
def test_a_plain_cpu_takes_the_cpu_engines() -> None:
    defaults = catalog().defaults
    assert (defaults["speech"].id, defaults["speech"].backend) == ("kokoro-82m", "kokoro_onnx")
    assert (defaults["transcription"].id, defaults["transcription"].backend) == ("whisper-base", "faster_whisper")


def test_a_chosen_backend_runs_all_models_of_its_kind() -> None:
    chosen = catalog(tts_backend="mlx_audio", stt_backend="mlx_audio")
    assert chosen.find("kokoro-82m", "speech").backend == "mlx_audio"
    assert chosen.find("whisper-tiny.en", "transcription").backend == "mlx_audio"


def test_a_hub_model_runs_on_mlx() -> None:
    chosen = catalog(tts_model="mlx-community/Kokoro-82M-bf16").defaults["speech"]
    assert (chosen.id, chosen.backend) == ("mlx-community/Kokoro-82M-bf16", "mlx_audio")


def test_openai_names_mean_the_defaults() -> None:
    chosen = catalog(stt_model="whisper-tiny.en")
    assert chosen.find("gpt-4o-transcribe", "transcription").id == "whisper-tiny.en"
    assert chosen.find("tts-1-hd", "speech").id == "kokoro-82m"


def test_a_folder_is_known_by_its_name_only(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "my-whisper", {"model_type": "whisper"})
    chosen = catalog(stt_model=str(folder))
    assert chosen.find("my-whisper", "transcription").folder == folder
    with pytest.raises(ModelNotFound):
        chosen.find(str(folder), "transcription")


def test_a_ctranslate2_folder_runs_on_faster_whisper(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "ct2", {"alignment_heads": [[0, 0]], "lang_ids": []}, "model.bin")
    assert catalog(stt_model=str(folder)).defaults["transcription"].backend == "faster_whisper"
    with pytest.raises(ConfigError, match="CTranslate2"):
        catalog(stt_model=str(folder), stt_backend="mlx_audio")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tts_model": "whisper-base"}, "SPEECHD_TTS_MODEL='whisper-base': this model transcribes"),
        ({"tts_model": "nothing"}, r"should be an embedded model \(kokoro-82m\), a folder, or a hub id"),
        ({"tts_backend": "kokoro_onnx", "tts_model": "a/b"}, "embedded kokoro-82m only"),
        ({"tts_backend": "mlx_audio", "device": "metal"}, "SPEECHD_DEVICE='metal'"),
    ],
)
@on_plain_cpu
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalog(**settings)


def test_the_wrong_kind_and_the_unknown() -> None:
    with pytest.raises(InvalidRequest, match="transcribes; this request needs one that speaks"):
        catalog().find("whisper-1", "speech")
    for name in ("nope", "a/b", "/etc/passwd", "../..", ""):
        with pytest.raises(ModelNotFound):
            catalog().find(name, "speech")


def downloaded(cache: Path, hub_id: str, config: dict[str, Any]) -> None:
    """A model as huggingface_hub keeps it."""
    folder = cache / ("models--" + hub_id.replace("/", "--"))
    checkpoint(folder / "snapshots" / "0123abcd", config)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abcd", encoding="utf-8")


def test_models_in_the_hub_cache_are_used_and_others_are_not_fetched(tmp_path: Path) -> None:
    downloaded(tmp_path, "mlx-community/whisper-small", {"model_type": "whisper"})
    downloaded(tmp_path, "someone/llama-1b", {"model_type": "llama"})
    found = ModelCatalog(Settings(_env_file=None), hub_cache=tmp_path)
    spec = found.find("mlx-community/whisper-small", "transcription")
    assert (spec.hub_id, spec.backend) == ("mlx-community/whisper-small", "mlx_audio")
    with pytest.raises(InvalidRequest, match="no audio model but 'llama'"):
        found.find("someone/llama-1b", "speech")
    with pytest.raises(InvalidRequest, match="transcribes"):
        found.find("mlx-community/whisper-small", "speech")
    with pytest.raises(ModelNotFound):
        found.find("mlx-community/Kokoro-82M-bf16", "speech")


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("kokoro", {"model_type": "kokoro"}, "speech"),
        ("csm-1b", {"model_type": "csm"}, "speech"),
        ("anything", {"model_type": "qwen3_tts"}, "speech"),
        ("whisper-large-v3-turbo", {"model_type": "whisper"}, "transcription"),
        ("parakeet-tdt-0.6b-v3", {"model_type": "parakeet_tdt"}, "transcription"),
        ("Llama-3.2-1B-Instruct-4bit", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, None),
        ("Qwen3-8B", {"model_type": "qwen3"}, None),
        ("clip-vit-base", {"model_type": "clip"}, None),
        ("bge-small-en", {"model_type": "bert"}, None),
    ],
)
def test_detection(tmp_path: Path, name: str, config: dict[str, Any], kind: str | None) -> None:
    found = detect(checkpoint(tmp_path / name, config), name)
    assert found.kind == kind
    assert found.family == config["model_type"]


def test_detection_without_a_config(tmp_path: Path) -> None:
    assert detect(tmp_path, "whisper").kind is None
    (tmp_path / "config.json").write_text("[1, 2]")
    assert detect(tmp_path, "whisper").kind is None
