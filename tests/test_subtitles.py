"""Subtitles: golden files byte for byte, and what another library reads in them.

`python -m tests.test_subtitles` writes the golden files anew.
"""

import html
from pathlib import Path
from typing import Literal

import pysubs2
import pytest

from backends.protocols import Segment
from subtitles import MAX_LINE_CHARACTERS, subtitles

GOLDEN = Path(__file__).parent / "golden"

Form = Literal["srt", "vtt"]
FORMS: tuple[Form, ...] = ("srt", "vtt")

SEGMENTS = (
    Segment(0.0, 1.5, " Hello there."),
    Segment(1.5, 1.5, " "),
    Segment(
        2.0004,
        6.9996,
        " A sentence that is far too long for one line on a screen, so it is broken where a word ends,"
        " and again, until it fits.",
    ),
    Segment(7.0, 9.25, " Salt & pepper, 1 < 2 > 0, <i>not slanted</i> & <c.loud>not loud</c>; &amp; stays."),
    Segment(9.25, 11.0, " An arrow --> in the words, and one more --> at 00:00:01.000."),
    Segment(11.0, 12.0, ""),
    Segment(11.0, 11.5, r" Some {curly} braces, and {\an8}a style."),
    Segment(12.0, 13.0, " Two lines\nand a blank one\n\nbelow."),
    Segment(59.9999, 61.0, " Over the minute."),
    Segment(3599.5, 3661.001, " Over the hour."),
    Segment(36_000.0, 36_001.0, " Ten hours: здравствуйте, γειά σου, שלום, 안녕하세요."),
    Segment(
        36_001.0,
        36_004.5,
        "今日はとても良い天気ですから、公園まで散歩に行きましょう。帰りに本屋へ寄って、新しい本を買いたいです。",
    ),
)

# (start, end) in milliseconds, and the words as a viewer reads them.
EXPECTED = (
    (0, 1_500, "Hello there."),
    (2_000, 7_000, SEGMENTS[2].text.strip()),
    (7_000, 9_250, SEGMENTS[3].text.strip()),
    (9_250, 11_000, "An arrow → in the words, and one more → at 00:00:01.000."),
    (11_000, 11_500, r"Some {curly} braces, and {\an8}a style."),
    (12_000, 13_000, "Two lines and a blank one below."),
    (60_000, 61_000, "Over the minute."),
    (3_599_500, 3_661_001, "Over the hour."),
    (36_000_000, 36_001_000, "Ten hours: здравствуйте, γειά σου, שלום, 안녕하세요."),
    (36_001_000, 36_004_500, SEGMENTS[-1].text),
)


def golden_file(form: Form) -> Path:
    return GOLDEN / f"long.{form}"


def shown(event: pysubs2.SSAEvent, form: Form) -> str:
    """The characters of a cue. The library leaves vtt's `&lt;` as it stands; srt has other characters instead."""
    text = html.unescape(event.text) if form == "vtt" else event.text.translate(str.maketrans("‹()", "<{}"))
    return without_spaces(text.replace("\\N", "\n"))


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("form", FORMS)
def test_the_golden_file(form: Form) -> None:
    assert subtitles(SEGMENTS, form).encode() == golden_file(form).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_another_library_reads_the_same(form: Form) -> None:
    read = pysubs2.SSAFile.from_string(subtitles(SEGMENTS, form), format_=form)
    expected = [(start, end, without_spaces(words)) for start, end, words in EXPECTED]
    assert [(event.start, event.end, shown(event, form)) for event in read] == expected


@pytest.mark.parametrize("form", FORMS)
def test_no_words_are_taken_for_markup(form: Form) -> None:
    """Nothing of `<i>` is left for a player to act on, and no cue holds a second line of times."""
    text = subtitles(SEGMENTS, form)
    assert "<" not in text
    assert text.count("-->") == len(EXPECTED)


@pytest.mark.parametrize("words", ["{curly} braces", r"{\an8}on top", r"{\b1}bold{\b0} words"])
def test_braces_are_words_in_srt(words: str) -> None:
    """Many players take what stands in braces for a style, and hide it. In vtt braces mean nothing."""
    (event,) = pysubs2.SSAFile.from_string(subtitles([Segment(0.0, 1.0, words)], "srt"), format_="srt")
    letters = "".join(filter(str.isalnum, words))
    assert "".join(filter(str.isalnum, event.plaintext)) == letters


def test_braces_are_words_in_vtt() -> None:
    assert "{curly} braces" in subtitles([Segment(0.0, 1.0, "{curly} braces")], "vtt")


def test_no_line_is_too_long() -> None:
    for line in subtitles(SEGMENTS, "srt").splitlines():
        assert len(line) <= MAX_LINE_CHARACTERS


def test_nothing_said() -> None:
    for segments in ([], [Segment(0.0, 1.0, "  ")]):
        assert subtitles(segments, "srt").strip() == ""
        assert subtitles(segments, "vtt") == "WEBVTT\n"


def test_cues_are_numbered_without_gaps() -> None:
    cues = subtitles(SEGMENTS, "srt").split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == [str(number) for number in range(1, len(EXPECTED) + 1)]


if __name__ == "__main__":
    for form in FORMS:
        golden_file(form).write_bytes(subtitles(SEGMENTS, form).encode())
