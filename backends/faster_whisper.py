"""Whisper through faster-whisper on CTranslate2: the engine that transcribes on a plain CPU.

What Whisper's tokens mean is here for both engines: the prompt, the words with their times, the log-probabilities.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import merge_punctuations, pad_or_trim
from numpy.typing import NDArray

from .protocols import (
    Feature,
    Pcm,
    Segment,
    TokenLogprob,
    Transcript,
    TranscriptionOptions,
    Word,
    whisper_temperatures,
)

# int8 weights with float32 activations: as fast as it gets on a CPU, with no more wrong words than float32.
CPU_COMPUTE_TYPE = "int8_float32"
CUDA_COMPUTE_TYPE = "float16"

FRAMES_PER_SECOND = 100
WINDOW_FRAMES = 30 * FRAMES_PER_SECOND  # 3,000: what the encoder takes
TEXT_POSITIONS = 448  # tokens that the decoder takes
MAX_PROMPT_TOKENS = TEXT_POSITIONS // 2 - 1  # 223: Whisper hears no more, one further token marks where it starts
POSITIONS_PER_SECOND = 50  # of the encoder, so the precision of the words' times is 20 ms
KEPT_ENCODINGS = 4  # a window of speech is seldom decoded in more parts

# What faster-whisper and openai/whisper draw to the word after it and before it.
OPENING_PUNCTUATION = "\"'“¿([{-"
CLOSING_PUNCTUATION = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = tuple(".。!！?？")
LONGEST_MEDIAN_SECONDS = 0.7


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
        return list(self._model.supported_languages)

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


# --- For both engines: what Whisper's tokens mean ---------------------------------------------------------------------


@dataclass(frozen=True)
class Aligned:
    """The tokens of a text, found in the sound by a second pass of the decoder over them."""

    times: NDArray[Any]  # where each starts, and where the last ends: seconds, shape (tokens + 1,)
    logprobs: NDArray[Any]  # shape (tokens,)


def most_probable(probabilities: Mapping[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def prompt_tokens(options: TranscriptionOptions, tokenizer: Tokenizer) -> list[int]:
    """What biases the words: the keywords, then the end of the prompt. At most half is keywords if both are long."""
    prompt = _plain_tokens(options.prompt or "", tokenizer)
    room = max(MAX_PROMPT_TOKENS - len(prompt), MAX_PROMPT_TOKENS // 2)
    kept: list[int] = []
    names = [keyword.strip() for keyword in options.keywords if keyword.strip()]
    for count in range(1, len(names) + 1):
        tokens = _plain_tokens(", ".join(names[:count]) + ".", tokenizer)
        if len(tokens) > room:
            break
        kept = tokens
    return kept + prompt[max(0, len(prompt) + len(kept) - MAX_PROMPT_TOKENS) :]


def _plain_tokens(text: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a text as if it had been said before, without those that would steer the model."""
    return [token for token in tokenizer.encode(f" {text.strip()}") if token < tokenizer.eot] if text.strip() else []


def segment_of(found: Mapping[str, Any]) -> Segment:
    """A segment of faster-whisper or mlx-audio, whose fields are named as openai/whisper names them."""
    figures: dict[str, Any] = {
        name: None if np.isnan(found[name]) else float(found[name])
        for name in ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
    }
    return Segment(
        start=float(found["start"]),
        end=float(found["end"]),
        text=found["text"],
        tokens=tuple(int(token) for token in found["tokens"]),
        seek=int(found["seek"]),
        **figures,
    )


def parts_of(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The segments that were heard together."""
    for _, part in itertools.groupby(segments, key=lambda segment: segment.seek):
        yield list(part)


def text_tokens(part: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
    """The tokens without the timestamps."""
    return [token for segment in part for token in segment.tokens if token < tokenizer.eot]


def context_of(tokens: Sequence[int], prompt: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """What stands before the tokens in the second pass: as much of the prompt as there is room for, and the start."""
    start = list(tokenizer.sot_sequence)
    room = TEXT_POSITIONS - len(tokens) - len(start) - 3  # for the prompt's mark, "no timestamps", and the end of text
    kept = prompt[max(0, len(prompt) - room) :] if room > 0 else []
    return [tokenizer.sot_prev, *kept, *start] if kept else start


def starts_of(token_indices: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """Where each token starts, in seconds, from the path through tokens and encoder positions (`timing.py` again)."""
    jumps = np.diff(token_indices, prepend=-1).astype(bool)
    return np.asarray(positions[jumps] / POSITIONS_PER_SECOND)


def with_details(
    segments: Sequence[Segment],
    align: Callable[[Sequence[Segment]], Aligned],
    tokenizer: Tokenizer,
    options: TranscriptionOptions,
) -> list[Segment]:
    """The segments with what the options ask for. With words, a segment lasts from its first to its last.

    `align` is given segments that were heard together; their tokens without the timestamps are what it aligns.
    """
    detailed: list[Segment] = []
    for heard_together in parts_of(segments):
        part, aligned = heard_together, align(heard_together)
        if options.logprobs:
            part = _with_logprobs(part, aligned, tokenizer)
        if options.words:
            part = _with_words(part, aligned, tokenizer, earliest=detailed[-1].end if detailed else 0.0)
        detailed += part
    return detailed


def _with_logprobs(part: Sequence[Segment], aligned: Aligned, tokenizer: Tokenizer) -> list[Segment]:
    measured = iter(aligned.logprobs.tolist())
    return [
        replace(
            segment,
            logprobs=tuple(
                _token_logprob(tokenizer.tokenizer.id_to_token(token), next(measured))
                for token in text_tokens([segment], tokenizer)
            ),
        )
        for segment in part
    ]


def _token_logprob(token: str, logprob: float) -> TokenLogprob:
    """token: as the vocabulary spells it, with a letter for each byte."""
    data = bytes(BYTES[letter] for letter in token)
    return TokenLogprob(data.decode(errors="replace"), logprob, tuple(data))


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for those from U+0100 on, in order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTES = _bytes_of_letters()


def _with_words(part: Sequence[Segment], aligned: Aligned, tokenizer: Tokenizer, earliest: float) -> list[Segment]:
    begin, found = 0, []
    for segment in part:
        tokens = text_tokens([segment], tokenizer)
        found.append(_found_words(tokens, aligned.times[begin : begin + len(tokens) + 1], tokenizer))
        begin += len(tokens)
    _shorten([word for words in found for word in words])
    offset = part[0].seek / FRAMES_PER_SECOND
    done = []
    for segment, words in zip(part, found, strict=True):
        timed = []
        for word in words:
            start = max(earliest, offset + word["start"])
            earliest = max(start, offset + word["end"])
            timed.append(Word(round(start, 2), round(earliest, 2), word["word"].strip()))
        lasts: dict[str, Any] = {"start": timed[0].start, "end": timed[-1].end} if timed else {}
        done.append(replace(segment, words=tuple(timed), **lasts))
    return done


def _found_words(tokens: list[int], times: NDArray[Any], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Words with the punctuation that belongs to them; their times are those without it."""
    texts, groups = tokenizer.split_to_word_tokens(tokens)
    ends = np.cumsum([len(group) for group in groups], dtype=int)
    words = [
        {"word": text, "tokens": group, "start": float(times[end - len(group)]), "end": float(times[end])}
        for text, group, end in zip(texts, groups, ends, strict=True)
    ]
    merge_punctuations(words, OPENING_PUNCTUATION, CLOSING_PUNCTUATION)
    return [word for word in words if word["word"].strip()]


def _shorten(words: Sequence[dict[str, Any]]) -> None:
    """Give the pause between two sentences back to neither of their words. Source: openai/whisper `timing.py`"""
    lengths = [word["end"] - word["start"] for word in words if word["end"] > word["start"]]
    if not lengths:
        return
    longest = 2 * min(LONGEST_MEDIAN_SECONDS, float(np.median(lengths)))
    begins = True
    for word in words:
        ends = word["word"].endswith(SENTENCE_ENDS)
        if begins:
            word["start"] = max(word["start"], word["end"] - longest)
        elif ends:
            word["end"] = min(word["end"], word["start"] + longest)
        begins = ends
