"""Segments of a transcript → SubRip (srt) and WebVTT (vtt)."""

import io
import textwrap
from collections.abc import Iterable
from typing import Literal

from webvtt import Caption, WebVTT

from backends.protocols import Segment

SRT_STAND_INS = str.maketrans({"<": "‹", "{": "(", "}": ")"})

MAX_LINE_CHARACTERS = 42  # what subtitling guides allow for a line


def subtitles(segments: Iterable[Segment], form: Literal["srt", "vtt"]) -> str:
    """One cue for each segment that has words, its text broken into lines that can be read."""
    document = WebVTT()
    for segment in segments:
        lines = textwrap.wrap(segment.text.strip(), MAX_LINE_CHARACTERS, break_on_hyphens=False)
        if lines:
            text = "\n".join(_escaped(line, form) for line in lines)
            document.captions.append(Caption(_timestamp(segment.start), _timestamp(segment.end), text))
    written = io.StringIO()
    document.write(written, format=form)
    return written.getvalue().rstrip("\n") + "\n"


def _escaped(line: str, form: Literal["srt", "vtt"]) -> str:
    """Nothing in the words may be taken for markup, or for the arrow between the times."""
    if form == "vtt":
        return line.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "→")
    # srt has no way to escape, and many players take braces for styles.
    return line.replace("-->", "→").translate(SRT_STAND_INS)


def _timestamp(seconds: float) -> str:
    """HH:MM:SS.mmm; the library writes srt's comma by itself."""
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
