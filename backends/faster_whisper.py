"""Whisper through faster-whisper on CTranslate2: the engine that transcribes on a plain CPU."""

from collections.abc import Sequence
from pathlib import Path

from faster_whisper import WhisperModel

from .protocols import Pcm, Segment, Transcript, TranscriptionOptions, whisper_temperatures

# int8 weights with float32 activations: as fast as it gets on a CPU, with no more wrong words than float32.
CPU_COMPUTE_TYPE = "int8_float32"
CUDA_COMPUTE_TYPE = "float16"


class FasterWhisperBackend:
    """A Whisper checkpoint in CTranslate2's form."""

    name = "faster_whisper"

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        """checkpoint: a folder with model.bin, config.json, tokenizer.json and vocabulary; nothing is fetched."""
        self.device = "cuda" if device == "cuda" else "cpu"
        compute_type = CUDA_COMPUTE_TYPE if self.device == "cuda" else CPU_COMPUTE_TYPE
        self._model_file = checkpoint / "model.bin"
        self._model = WhisperModel(
            str(checkpoint), device=self.device, compute_type=compute_type, local_files_only=True
        )

    def languages(self) -> Sequence[str]:
        return list(self._model.supported_languages)

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        segments, info = self._model.transcribe(
            pcm,
            language=options.language,
            initial_prompt=options.prompt,
            temperature=whisper_temperatures(options.temperature),
            condition_on_previous_text=False,
        )
        heard = [
            Segment(
                start=segment.start,
                end=segment.end,
                text=segment.text,
                tokens=tuple(segment.tokens),
                temperature=segment.temperature,
                avg_logprob=segment.avg_logprob,
                compression_ratio=segment.compression_ratio,
                no_speech_prob=segment.no_speech_prob,
            )
            for segment in segments
        ]
        return Transcript(segments=heard, language=info.language)

    def memory_bytes(self) -> int | None:
        return self._model_file.stat().st_size
