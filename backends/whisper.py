"""What Whisper's tokens mean, for both engines that run it: the prompt, words with their times, log-probabilities."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import merge_punctuations
from numpy.typing import NDArray

from .protocols import Segment, TokenLogprob, TranscriptionOptions, Word

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


@dataclass(frozen=True)
class Aligned:
    """The tokens of a text, found in the sound by a second pass of the decoder over them."""

    times: NDArray[Any]  # where each starts, and where the last ends: seconds, shape (tokens + 1,)
    logprobs: NDArray[Any]  # shape (tokens,)


def most_probable(probabilities: Mapping[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def prompt_tokens(options: TranscriptionOptions, tokenizer: Tokenizer) -> list[int]:
    """What biases the words: the end of the prompt, then the keywords, which work better the closer they stand.

    Where both are long, each gets half. Of the keywords, the first are kept.
    """
    prompt = _plain_tokens(options.prompt or "", tokenizer)
    room = max(MAX_PROMPT_TOKENS - len(prompt), MAX_PROMPT_TOKENS // 2)
    kept: list[int] = []
    names = [keyword.strip() for keyword in options.keywords if keyword.strip()]
    for count in range(1, len(names) + 1):
        tokens = _plain_tokens(", ".join(names[:count]) + ".", tokenizer)
        if len(tokens) > room:
            break
        kept = tokens
    return prompt[max(0, len(prompt) + len(kept) - MAX_PROMPT_TOKENS) :] + kept


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
