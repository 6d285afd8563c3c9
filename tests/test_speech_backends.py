"""The two engines that run Kokoro: the same phonemes in, nearly the same sound out, in every language."""

from pathlib import Path

import numpy as np
import pytest

from backends import mlx_audio
from backends.kokoro_onnx import KokoroOnnxBackend
from backends.protocols import SpeechBackend, SpeechOptions
from embedded_models import checkpoint
from errors import InternalError
from phonemes import KOKORO_LANGUAGES
from tests.test_voice_presets import KOKORO_VOICES

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def onnx(model_cache: Path) -> KokoroOnnxBackend:
    return KokoroOnnxBackend(checkpoint("kokoro-82m", "onnx", model_cache))


@pytest.fixture(scope="module")
def mlx(model_cache: Path) -> SpeechBackend:
    return mlx_audio.load_speech(checkpoint("kokoro-82m", "mlx", model_cache), "cpu", model_cache)


# A short sentence for one voice of each language.
SENTENCES = {
    "af_heart": "Hello there.",
    "bm_george": "Good evening.",
    "ef_dora": "Buenos días.",
    "ff_siwis": "Bonjour à tous.",
    "hf_alpha": "नमस्ते.",
    "if_sara": "Buongiorno.",
    "jf_alpha": "こんにちは。",
    "pf_dora": "Bom dia.",
    "zf_xiaoxiao": "你好。",
}


def test_there_is_a_sentence_for_each_language() -> None:
    assert {voice[0] for voice in SENTENCES} == set(KOKORO_LANGUAGES)


def test_both_have_all_voices(onnx: SpeechBackend, mlx: SpeechBackend) -> None:
    assert {voice.id for voice in onnx.voices()} == KOKORO_VOICES
    assert list(onnx.voices()) == list(mlx.voices())


@pytest.mark.parametrize("voice", SENTENCES)
def test_both_engines_speak_the_same_sentence(onnx: SpeechBackend, mlx: SpeechBackend, voice: str) -> None:
    ours = list(onnx.speak(SENTENCES[voice], SpeechOptions(voice=voice)))
    theirs = list(mlx.speak(SENTENCES[voice], SpeechOptions(voice=voice)))
    assert len(ours) == len(theirs) == 1
    assert ours[0].input_tokens == theirs[0].input_tokens
    for spoken in (ours[0], theirs[0]):
        assert spoken.pcm.dtype == np.float32
        assert 0.01 < float(np.abs(spoken.pcm).max()) <= 1.5
    # The ONNX form is int8: its durations may round to another frame of 25 ms here and there.
    assert len(ours[0].pcm) == pytest.approx(len(theirs[0].pcm), rel=0.05)


def test_speed_reaches_the_model(mlx: SpeechBackend) -> None:
    (normal,) = mlx.speak("Hello there.", SpeechOptions(voice="af_heart"))
    (fast,) = mlx.speak("Hello there.", SpeechOptions(voice="af_heart", speed=2.0))
    assert len(fast.pcm) < 0.7 * len(normal.pcm)


def test_nothing_to_speak_gives_no_sound(onnx: SpeechBackend) -> None:
    assert list(onnx.speak("…", SpeechOptions(voice="af_heart"))) == []


def test_a_device_that_is_not_there(model_cache: Path) -> None:
    with pytest.raises(InternalError, match="no metal device"):
        mlx_audio.load_speech(checkpoint("kokoro-82m", "mlx", model_cache), "metal", model_cache)


def test_weights_in_another_form_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "kokoro"}', encoding="utf-8")
    (tmp_path / "weights.npz").write_bytes(b"")
    for load in (mlx_audio.load_speech, mlx_audio.load_transcription):
        with pytest.raises(InternalError, match="no weights in safetensors"):
            load(tmp_path, "cpu", tmp_path)
