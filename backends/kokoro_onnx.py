"""Kokoro through kokoro-onnx on ONNX Runtime: the engine that speaks on a plain CPU."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from kokoro_onnx import Kokoro

from phonemes import Phonemizer

from . import kokoro_voices
from .protocols import ModelVoice, SpeechOptions, Spoken

KOKORO_SAMPLE_RATE = 24_000  # Hz


class KokoroOnnxBackend:
    """The embedded Kokoro. Phonemes are made here, by the code that serves every Kokoro, and not by kokoro-onnx."""

    name = "kokoro_onnx"
    device = "cpu"
    sample_rate = KOKORO_SAMPLE_RATE
    speed_range = (0.5, 2.0)  # what kokoro-onnx accepts
    takes_instructions = False

    def __init__(self, checkpoint: Path) -> None:
        """checkpoint: a folder with model.onnx, voices.npz and config.json, as embedded_models makes it."""
        self._model_file = checkpoint / "model.onnx"
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        self._kokoro = Kokoro(str(self._model_file), str(checkpoint / "voices.npz"), vocab_config=config)
        self._phonemizer = Phonemizer(config["vocab"])
        self._voices = tuple(sorted(self._kokoro.get_voices()))

    def voices(self) -> Sequence[ModelVoice]:
        return [kokoro_voices.model_voice(voice) for voice in self._voices]

    def language_of(self, voice: str) -> str | None:
        return kokoro_voices.model_voice(voice).language

    def speak(self, text: str, options: SpeechOptions) -> Iterator[Spoken]:
        voice = options.voice or self._voices[0]
        style = self._kokoro.get_voice_style(voice).astype(np.float32)
        for phonemes in self._phonemizer.pieces(text, kokoro_voices.language_letter(voice)):
            pcm, _ = self._kokoro.create(phonemes, style, speed=options.speed, is_phonemes=True, trim=False)
            yield Spoken(np.asarray(pcm, dtype=np.float32), input_tokens=len(phonemes))

    def memory_bytes(self) -> int | None:
        return self._model_file.stat().st_size
