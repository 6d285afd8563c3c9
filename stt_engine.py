"""PCM → steps → transcript, over a transcription backend. Knows no HTTP and no settings."""

import asyncio
import dataclasses
import difflib
from collections.abc import Iterator

import numpy as np

from backends.protocols import WHISPER_SAMPLE_RATE, Pcm, Segment, Transcript, TranscriptionBackend, TranscriptionOptions
from errors import InvalidLanguage
from inference_thread import InferenceThread
from voice_activity import Window, speech_windows

SHORTEST_AUDIO_SECONDS = 0.5  # less than this is padded: models fail on an all but empty window
WARM_UP_SECONDS = 1.0
# A temperature above 0 is tried once; at 0, silence would be tried again at each higher one.
WARM_UP_OPTIONS = TranscriptionOptions(temperature=1.0)


class SttEngine:
    """A loaded model that transcribes, and the thread that runs it."""

    def __init__(self, backend: TranscriptionBackend, thread: InferenceThread) -> None:
        self.backend = backend
        self.thread = thread

    async def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
        """pcm: float32, shape (samples,), in [-1, 1], 16 kHz, of any length.

        Audio without speech gives a transcript without segments. Raises InvalidLanguage where the model does not
        know the language, InternalError where it fails.
        """
        options = dataclasses.replace(options, language=self._known_language(options.language))
        windows = await asyncio.to_thread(speech_windows, pcm)
        recording = _Recording(self.backend, pcm, options)
        segments: list[Segment] = []
        async for heard in self.thread.run(recording.hear(window) for window in windows):
            segments += heard
        return Transcript(segments=segments, language=recording.options.language)

    async def warm_up(self) -> None:
        """Take the cost of the first request: transcribe a second of silence and drop it."""
        silence = np.zeros(int(WARM_UP_SECONDS * WHISPER_SAMPLE_RATE), dtype=np.float32)
        await self.thread.call(lambda: self.backend.transcribe(silence, WARM_UP_OPTIONS))

    def _known_language(self, language: str | None) -> str | None:
        """The language's code as the model wants it, None where it is to be detected."""
        if language is None or not language.strip():
            return None
        code = language.strip().lower()
        known = self.backend.languages()
        if not known or code in known:
            return code
        near = difflib.get_close_matches(code, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else f", only: {', '.join(sorted(known))}."
        raise InvalidLanguage(f"The model does not know the language {language!r}{hint}", param="language")


class _Recording:
    """One recording on its way through a model, window by window, on the model's thread."""

    def __init__(self, backend: TranscriptionBackend, pcm: Pcm, options: TranscriptionOptions) -> None:
        self.backend = backend
        self.pcm = pcm
        self.options = options

    def hear(self, window: Window) -> Iterator[list[Segment]]:
        """The segments of one window, with their times in the recording."""
        audio = _at_least(self.pcm[window.start : window.end], SHORTEST_AUDIO_SECONDS)
        heard = self.backend.transcribe(audio, self.options)
        if self.options.language is None:
            # What the first window was heard to be in holds for the others: a recording has one language.
            self.options = dataclasses.replace(self.options, language=heard.language)
        yield [_moved(segment, window.start / WHISPER_SAMPLE_RATE) for segment in heard.segments]


def text_of(transcript: Transcript) -> str:
    """The whole text. Models put a space before each segment that needs one."""
    return "".join(segment.text for segment in transcript.segments).strip()


def _moved(segment: Segment, seconds: float) -> Segment:
    return dataclasses.replace(segment, start=segment.start + seconds, end=segment.end + seconds)


def _at_least(pcm: Pcm, seconds: float) -> Pcm:
    missing = int(seconds * WHISPER_SAMPLE_RATE) - len(pcm)
    return np.pad(pcm, (0, missing)) if missing > 0 else pcm
