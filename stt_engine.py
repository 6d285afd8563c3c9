"""PCM → steps → transcript, over a transcription backend. Knows no HTTP and no settings."""

import asyncio
import dataclasses
import difflib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from backends.protocols import WHISPER_SAMPLE_RATE, Pcm, Segment, Transcript, TranscriptionBackend, TranscriptionOptions
from errors import InvalidLanguage, InvalidRequest
from inference_thread import InferenceThread, Timing
from voice_activity import AUTO, VoiceActivity, Window, speech_windows

SEEK_FRAMES_PER_SECOND = 100  # the unit of `Segment.seek`
SHORTEST_AUDIO_SECONDS = 0.5  # less than this is padded: models fail on an all but empty window
WARM_UP_SECONDS = 1.0
# A temperature above 0 is tried once; at 0, silence would be tried again at each higher one.
WARM_UP_OPTIONS = TranscriptionOptions(temperature=1.0)


@dataclass(frozen=True)
class Heard:
    """What was heard in one window. `language` is that of the recording, None where the model can't tell."""

    segments: Sequence[Segment]
    language: str | None


class SttEngine:
    """A loaded model that transcribes, and the thread that runs it."""

    def __init__(self, backend: TranscriptionBackend, thread: InferenceThread) -> None:
        self.backend = backend
        self.thread = thread

    async def stream(
        self,
        pcm: Pcm,
        options: TranscriptionOptions,
        activity: VoiceActivity = AUTO,
        timing: Timing | None = None,
    ) -> AsyncGenerator[Heard]:
        """Yield what is heard window by window, in order; times and `seek` are those of the recording.

        pcm: float32, shape (samples,), in [-1, 1], 16 kHz, of any length. Audio without speech yields nothing.
        Closing the generator cancels the work. Raises InvalidLanguage where the model does not know a language,
        InvalidRequest where it can't translate, InternalError where it fails.
        """
        options = self._checked(options)
        windows = await asyncio.to_thread(speech_windows, pcm, activity)
        recording = _Recording(self.backend, pcm, options)
        async with aclosing(self.thread.run((recording.hear(window) for window in windows), timing)) as run:
            async for heard in run:
                yield heard

    async def transcribe(
        self,
        pcm: Pcm,
        options: TranscriptionOptions,
        activity: VoiceActivity = AUTO,
        timing: Timing | None = None,
    ) -> Transcript:
        """All that `stream` yields, as one. Audio without speech gives a transcript without segments."""
        segments: list[Segment] = []
        language = self._checked(options).language
        async with aclosing(self.stream(pcm, options, activity, timing)) as stream:
            async for heard in stream:
                segments += heard.segments
                language = heard.language
        return Transcript(segments=segments, language=language)

    async def warm_up(self) -> None:
        """Take the cost of the first request: transcribe a second of silence and drop it."""
        silence = np.zeros(int(WARM_UP_SECONDS * WHISPER_SAMPLE_RATE), dtype=np.float32)
        await self.thread.call(lambda: self.backend.transcribe(silence, WARM_UP_OPTIONS))

    def _checked(self, options: TranscriptionOptions) -> TranscriptionOptions:
        """The options with the languages' codes as the model wants them; a single candidate is the language."""
        if options.task == "translate" and not self.backend.can_translate():
            raise InvalidRequest(
                "This model can't translate. Ask for a Whisper model of many languages, such as whisper-base.",
                param="model",
            )
        language = self._known_language(options.language, "language")
        known = (self._known_language(candidate, "languages") for candidate in options.languages)
        candidates = tuple(dict.fromkeys(candidate for candidate in known if candidate))
        if language is None and len(candidates) == 1:
            language = candidates[0]
        return dataclasses.replace(options, language=language, languages=candidates)

    def _known_language(self, language: str | None, param: str) -> str | None:
        """The language's code as the model wants it, None where it is to be detected."""
        if language is None or not language.strip():
            return None
        code = language.strip().lower()
        known = self.backend.languages()
        if not known or code in known:
            return code
        near = difflib.get_close_matches(code, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else f", only: {', '.join(sorted(known))}."
        raise InvalidLanguage(f"The model does not know the language {language!r}{hint}", param=param)


class _Recording:
    """One recording on its way through a model, window by window, on the model's thread."""

    def __init__(self, backend: TranscriptionBackend, pcm: Pcm, options: TranscriptionOptions) -> None:
        self.backend = backend
        self.pcm = pcm
        self.options = options

    def hear(self, window: Window) -> Iterator[Heard]:
        """The segments of one window, with their times in the recording."""
        audio = _at_least(self.pcm[window.start : window.end], SHORTEST_AUDIO_SECONDS)
        if self.options.language is None and self.options.languages:
            self._speak(self._most_probable(audio))
        heard = self.backend.transcribe(audio, self.options)
        if self.options.language is None:
            self._speak(heard.language)
        yield Heard([_moved(segment, window) for segment in heard.segments], self.options.language)

    def _speak(self, language: str | None) -> None:
        """What the first window was heard to be in holds for the others: a recording has one language."""
        self.options = dataclasses.replace(self.options, language=language)

    def _most_probable(self, audio: Pcm) -> str | None:
        """The candidate that the window is in; None where the model can't tell."""
        probabilities = self.backend.language_probabilities(audio)
        if not probabilities:
            return None
        return max(self.options.languages, key=lambda language: probabilities.get(language, 0.0))


def _moved(segment: Segment, window: Window) -> Segment:
    """A segment with the times of the recording, which all lie in its window."""
    start, end = window.start / WHISPER_SAMPLE_RATE, window.end / WHISPER_SAMPLE_RATE

    def moved(seconds: float) -> float:
        return min(round(start + seconds, 3), end)

    return dataclasses.replace(
        segment,
        start=moved(segment.start),
        end=moved(segment.end),
        seek=round(start * SEEK_FRAMES_PER_SECOND) + segment.seek,
        words=[dataclasses.replace(word, start=moved(word.start), end=moved(word.end)) for word in segment.words],
    )


def _at_least(pcm: Pcm, seconds: float) -> Pcm:
    missing = int(seconds * WHISPER_SAMPLE_RATE) - len(pcm)
    return np.pad(pcm, (0, missing)) if missing > 0 else pcm
