"""Transcription through mlx-audio: Whisper, which gives all there is, and any other model, which gives its text.

Whisper has a class of its own also because mlx-audio casts it to float16, which no BLAS serves on a CPU.
Loading is `mlx_audio.load_transcription`. Everything here must run on the one thread that owns MLX.
"""

import dataclasses
import inspect
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from faster_whisper.tokenizer import Tokenizer
from numpy.typing import NDArray

from .mlx_audio import NAME, accepted, weight_bytes
from .protocols import (
    WHISPER_SAMPLE_RATE,
    Feature,
    Pcm,
    Segment,
    Transcript,
    TranscriptionOptions,
    whisper_temperatures,
)
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

FRAMES_PER_POSITION = 2  # of the mel spectrogram, for each position of the encoder
SMOOTHED_POSITIONS = 7  # openai/whisper's median filter over the attention


class MlxWhisper:
    """Whisper. On a CPU it runs in float32: float16 products never reach a BLAS there."""

    name = NAME

    def __init__(self, model: Any, device: str) -> None:
        self.device = device
        self._model = model
        self._half_precision = device != "cpu"
        if not self._half_precision:
            cast_whisper_to_float32(model)
        self._memory_bytes = weight_bytes(model)
        self._tokenizer = model.get_tokenizer().hf_tokenizer.backend_tokenizer
        self._prompt: list[int] = []
        # mlx-audio's loop over a window encodes it for each try, and hears the prompt only in its first part.
        model.encoder = _RememberingEncoder(model.encoder)
        model.decode = self._decode

    def languages(self) -> Sequence[str]:
        from mlx_audio.stt.models.whisper.tokenizer import LANGUAGES

        return list(LANGUAGES)[: self._model.num_languages] if self._model.is_multilingual else ["en"]

    def can_translate(self) -> bool:
        return bool(self._model.is_multilingual)

    def supports(self, feature: Feature) -> bool:  # noqa: ARG002  # Whisper gives them all
        return True

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        import mlx.core as mx

        language = options.language or most_probable(self.language_probabilities(pcm))
        tokenizer = Tokenizer(self._tokenizer, self._model.is_multilingual, options.task, language)
        self._prompt = prompt_tokens(options, tokenizer)
        heard = self._model.generate(
            mx.array(pcm),
            language=language,
            task=options.task,
            temperature=whisper_temperatures(options.temperature),
            condition_on_previous_text=False,
            fp16=self._half_precision,
        )
        # What was found to be no words keeps its place in mlx-audio's list, with an empty text.
        segments = [segment_of(found) for found in heard.segments if found["text"].strip()]
        if options.words or options.logprobs:
            mel, frames = self._model._prepare_audio(mx.array(pcm))
            segments = with_details(segments, partial(self._aligned, mel, frames, tokenizer), tokenizer, options)
        return Transcript(segments=segments, language=language)

    def language_probabilities(self, pcm: Pcm) -> Mapping[str, float]:
        import mlx.core as mx

        if not self._model.is_multilingual:
            return {"en": 1.0}
        mel, frames = self._model._prepare_audio(mx.array(pcm))
        _, probabilities = self._model.detect_language(self._window(mel, 0, min(frames, WINDOW_FRAMES)))
        return dict(probabilities)

    def count_tokens(self, text: str) -> int | None:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def memory_bytes(self) -> int | None:
        return self._memory_bytes

    def _decode(self, mel: Any, options: Any) -> Any:
        """In the place of the model's `decode`: the same, with the prompt."""
        return type(self._model).decode(self._model, mel, dataclasses.replace(options, prompt=self._prompt))

    def _window(self, mel: Any, seek: int, frames: int) -> Any:
        """What mlx-audio's loop decodes: shape (3000, mels)."""
        from mlx_audio.stt.models.whisper.audio import pad_or_trim

        return pad_or_trim(mel[seek : seek + frames], WINDOW_FRAMES, axis=-2).astype(self._model.dtype)

    def _aligned(self, mel: Any, total_frames: int, tokenizer: Tokenizer, part: Sequence[Segment]) -> Aligned:
        """A second pass of the decoder, over the tokens as they are. Source: openai/whisper `timing.py`"""
        import mlx.core as mx

        seek = part[0].seek
        frames = min(WINDOW_FRAMES, total_frames - seek)
        tokens = text_tokens(part, tokenizer)
        context = context_of(tokens, self._prompt, tokenizer)
        ids = mx.array([[*context, tokenizer.no_timestamps, *tokens, tokenizer.eot]])
        logits, _, attention = self._model.decoder(ids, self._model.encoder(self._window(mel, seek, frames)[None]))
        logits = logits[0, len(context) : -2, : tokenizer.eot].astype(mx.float32)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        heads = mx.stack([attention[layer][0, head] for layer, head in self._model.alignment_heads.tolist()])
        return Aligned(
            times=_token_starts(heads[:, :, : max(1, frames // FRAMES_PER_POSITION)], len(context)),
            logprobs=np.array(mx.take_along_axis(logprobs, mx.array(tokens)[:, None], axis=1)[:, 0]),
        )


class _RememberingEncoder:
    """A Whisper encoder that gives the encodings it made last without making them again."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._encodings: deque[tuple[Any, Any]] = deque(maxlen=KEPT_ENCODINGS)

    def __call__(self, mel: Any) -> Any:
        import mlx.core as mx

        for known, encoding in self._encodings:
            if mx.array_equal(known, mel).item():
                return encoding
        encoding = self._encoder(mel)
        self._encodings.append((mel, encoding))
        return encoding


class MlxTranscription:
    """Any other model that transcribes; what it does not give is absent."""

    name = NAME

    def __init__(self, model: Any, device: str) -> None:
        self.device = device
        self._model = model
        self._parameters = inspect.signature(model.generate).parameters

    def languages(self) -> Sequence[str]:
        return []

    def can_translate(self) -> bool:
        return False

    def supports(self, feature: Feature) -> bool:  # noqa: ARG002  # its one segment is the whole window
        return False

    def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        import mlx.core as mx

        wanted: dict[str, Any] = {"temperature": options.temperature, "verbose": False, "stream": False}
        if options.language is not None:
            wanted["language"] = options.language
        if options.keywords:
            wanted["hotwords"] = list(options.keywords)
        heard = self._model.generate(mx.array(pcm), **accepted(wanted, self._parameters))
        language = getattr(heard, "language", None)
        text = Segment(start=0.0, end=len(pcm) / WHISPER_SAMPLE_RATE, text=heard.text)
        return Transcript(segments=[text], language=language if isinstance(language, str) else options.language)

    def language_probabilities(self, pcm: Pcm) -> Mapping[str, float]:  # noqa: ARG002  # the protocol's signature
        return {}

    def count_tokens(self, text: str) -> int | None:  # noqa: ARG002  # each family keeps its tokenizer elsewhere
        return None

    def memory_bytes(self) -> int | None:
        return weight_bytes(self._model)


def _token_starts(attention: Any, context: int) -> NDArray[Any]:
    """Where in the sound each token starts, and the last ends, in seconds; shape (tokens + 1,).

    attention: before its softmax, shape (heads, context + 1 + tokens + 1, positions).
    """
    import mlx.core as mx
    from mlx_audio.stt.models.whisper.timing import dtw, median_filter

    weights = mx.softmax(attention, axis=-1, precise=True).astype(mx.float32)
    spread = mx.sqrt(mx.var(weights, axis=-2, keepdims=True))
    weights = (weights - mx.mean(weights, axis=-2, keepdims=True)) / mx.maximum(spread, 1e-8)
    matrix = np.array(mx.mean(median_filter(weights, SMOOTHED_POSITIONS), axis=0))
    return starts_of(*dtw(-matrix[context:-1]))


def cast_whisper_to_float32(model: Any) -> None:
    """The weights, and the two constants that mlx-audio keeps in half precision outside of them."""
    import mlx.core as mx

    model.set_dtype(mx.float32)
    model.dtype = mx.float32
    model.encoder._positional_embedding = model.encoder._positional_embedding.astype(mx.float32)
    model.decoder._mask = model.decoder._mask.astype(mx.float32)
    mx.eval(model.parameters())
