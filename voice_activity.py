"""Where in a recording somebody speaks: windows for the model, cut at pauses.

Silero VAD as faster-whisper ships it, on ONNX Runtime. Silence, music and noise give no window, so no model is
asked to find words in them.
"""

from dataclasses import dataclass

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz: what Silero VAD was made for
MAX_WINDOW_SECONDS = 30.0  # what one Whisper call hears
MAX_PADDING_MS = 10_000  # more would leave too little of a window to the speech


@dataclass(frozen=True)
class VoiceActivity:
    """What counts as speech, and where it ends. The defaults are those of OpenAI's `server_vad`."""

    threshold: float = 0.5  # probability of speech, 0 to 1
    prefix_padding_ms: int = 300  # kept before the speech, and after it; up to MAX_PADDING_MS
    silence_duration_ms: int = 200  # a shorter silence does not end a stretch of speech


# Soft first and last sounds are kept, and a window is seldom cut at the pause within a sentence.
AUTO = VoiceActivity(prefix_padding_ms=200, silence_duration_ms=300)


@dataclass(frozen=True)
class Window:
    """Samples [start, end) of a recording."""

    start: int
    end: int


def speech_windows(pcm: NDArray[np.float32], activity: VoiceActivity = AUTO) -> list[Window]:
    """Windows of at most 30 seconds that hold all speech of a recording, in order, without overlap.

    pcm: float32, shape (samples,), in [-1, 1], 16 kHz. Pauses inside a window stay in it: the times that a model
    gives then need only the window's start added.
    """
    options = VadOptions(
        threshold=activity.threshold,
        min_silence_duration_ms=activity.silence_duration_ms,
        speech_pad_ms=min(activity.prefix_padding_ms, MAX_PADDING_MS),
        max_speech_duration_s=MAX_WINDOW_SECONDS,
    )
    stretches = [Window(found["start"], found["end"]) for found in get_speech_timestamps(pcm, options)]
    return _joined(stretches, int(MAX_WINDOW_SECONDS * SAMPLE_RATE))


def _joined(stretches: list[Window], longest: int) -> list[Window]:
    """Neighbours put together while they fit: a model hears better with context, and costs the same for 3 or 30 s."""
    windows: list[Window] = []
    for stretch in stretches:
        if windows and stretch.end - windows[-1].start <= longest:
            windows[-1] = Window(windows[-1].start, stretch.end)
        else:
            windows.append(stretch)
    return windows
