"""Whisper through faster-whisper on CTranslate2: the engine that transcribes on a plain CPU."""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import pad_or_trim
from numpy.typing import NDArray

from .protocols import Feature, Pcm, Segment, Transcript, TranscriptionOptions, whisper_temperatures
from .whisper import (
    KEPT_ENCODINGS,
    WINDOW_FRAMES,
    Aligned,
    context_of,
    most_probable,
    prompt_tokens,
    segment_of,
    starts_of,
    text_tokens,
    with_details,
)

# int8 weights with float32 activations: a fifth less of the CPU's time than float32, and as many wrong words
# (4 of 396 each, in sentences spoken by Kokoro and heard by whisper-base).
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
        self._model = _PromptedWhisper(
            str(checkpoint), device=self.device, compute_type=compute_type, local_files_only=True
        )
        self._multilingual = bool(self._model.model.is_multilingual)

    def languages(self) -> Sequence[str]:
        # faster-whisper lists Cantonese for every model; only large-v3 has a token for it.
        known = self._model.hf_tokenizer.token_to_id
        return [code for code in self._model.supported_languages if known(f"<|{code}|>") is not None]

    def can_translate(self) -> bool:
        return self._multilingual

    def supports(self, feature: Feature) -> bool:  # noqa: ARG002  # Whisper gives them all
        return True

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        language = options.language or most_probable(self.language_probabilities(pcm))
        tokenizer = Tokenizer(self._model.hf_tokenizer, self._multilingual, options.task, language)
        self._model.prompt = prompt_tokens(options, tokenizer)
        found, _ = self._model.transcribe(
            pcm,
            language=language,
            task=options.task,
            temperature=whisper_temperatures(options.temperature),
            condition_on_previous_text=False,
        )
        segments = [segment_of(vars(segment)) for segment in found]
        if options.words or options.logprobs:
            features = self._model.feature_extractor(pcm)
            segments = with_details(segments, partial(self._aligned, features, tokenizer), tokenizer, options)
        return Transcript(segments=segments, language=language)

    def language_probabilities(self, pcm: Pcm) -> Mapping[str, float]:
        if not self._multilingual:
            return {"en": 1.0}
        encoding, _ = self._encoded(self._model.feature_extractor(pcm), 0)
        return {
            token.strip("<|>"): probability for token, probability in self._model.model.detect_language(encoding)[0]
        }

    def count_tokens(self, text: str) -> int | None:
        return len(self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids)

    def memory_bytes(self) -> int | None:
        return self._model_file.stat().st_size

    def _encoded(self, features: NDArray[np.float32], seek: int) -> tuple[Any, int]:
        """The encoding of what follows `seek`, as faster-whisper's loop makes it, and its frames without padding."""
        frames = min(WINDOW_FRAMES, features.shape[-1] - 1 - seek)
        return self._model.encode(pad_or_trim(features[:, seek : seek + frames])), frames

    def _aligned(self, features: NDArray[np.float32], tokenizer: Tokenizer, part: Sequence[Segment]) -> "Aligned":
        encoding, frames = self._encoded(features, part[0].seek)
        tokens = text_tokens(part, tokenizer)
        context = context_of(tokens, self._model.prompt, tokenizer)
        result = self._model.model.align(encoding, context, [tokens], frames)[0]
        pairs = np.array(result.alignments)
        return Aligned(
            times=starts_of(pairs[:, 0], pairs[:, 1]),
            logprobs=np.log(np.maximum(result.text_token_probs, np.finfo(np.float32).tiny)),
        )


class _PromptedWhisper(WhisperModel):  # type: ignore[misc]  # faster-whisper ships no type information
    """faster-whisper's loop over a window, with the prompt in front of each part, and each part encoded once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prompt: list[int] = []
        self._encodings: deque[tuple[NDArray[np.float32], Any]] = deque(maxlen=KEPT_ENCODINGS)

    def encode(self, features: NDArray[np.float32]) -> Any:
        for known, encoding in self._encodings:
            if np.array_equal(known, features):
                return encoding
        encoding = super().encode(features)
        self._encodings.append((features, encoding))
        return encoding

    def get_prompt(self, tokenizer: Tokenizer, previous_tokens: list[int], *args: Any, **kwargs: Any) -> Any:
        return super().get_prompt(tokenizer, self.prompt + previous_tokens, *args, **kwargs)
