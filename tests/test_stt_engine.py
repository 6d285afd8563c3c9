"""The transcription engine: windows, times, languages, and silence."""

import asyncio
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from backends.protocols import WHISPER_SAMPLE_RATE, Pcm, Transcript, TranscriptionOptions
from errors import InvalidLanguage
from inference_thread import InferenceThread
from stt_engine import SttEngine, text_of
from tests.conftest import clip_pcm
from tests.fakes import FakeTranscription
from voice_activity import MAX_WINDOW_SECONDS, speech_windows


@pytest.fixture
def engine(fake_transcription: FakeTranscription) -> Iterator[SttEngine]:
    thread = InferenceThread("test")
    yield SttEngine(fake_transcription, thread)
    thread.close()


@pytest.fixture(scope="module")
def sentence() -> Pcm:
    return clip_pcm("quick_brown_fox")


def silence(seconds: float) -> Pcm:
    return np.zeros(int(seconds * WHISPER_SAMPLE_RATE), dtype=np.float32)


def transcribe(engine: SttEngine, pcm: Pcm, language: str | None = None) -> Transcript:
    return asyncio.run(engine.transcribe(pcm, TranscriptionOptions(language=language)))


def test_windows_hold_the_speech_and_leave_out_the_silence(sentence: Pcm) -> None:
    pcm = np.concatenate([silence(20), sentence, silence(40), sentence, silence(20)])
    windows = speech_windows(pcm)
    assert len(windows) == 2
    for window, begins in zip(windows, (20, 60 + len(sentence) / WHISPER_SAMPLE_RATE), strict=True):
        assert begins - 0.5 <= window.start / WHISPER_SAMPLE_RATE <= begins + 1.0
        assert (window.end - window.start) < len(sentence) + WHISPER_SAMPLE_RATE


def test_windows_are_in_order_apart_and_at_most_thirty_seconds(sentence: Pcm) -> None:
    windows = speech_windows(np.tile(np.concatenate([sentence, silence(0.4)]), 30))
    assert len(windows) > 2
    for window, following in itertools.pairwise(windows):
        assert window.start < window.end <= following.start
    assert all(window.end - window.start <= MAX_WINDOW_SECONDS * WHISPER_SAMPLE_RATE for window in windows)
    # Neighbours are put together, so few windows are needed.
    assert len(windows) <= 2 + windows[-1].end / (0.5 * MAX_WINDOW_SECONDS * WHISPER_SAMPLE_RATE)


@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "nothing"])
def test_no_speech_no_windows(kind: str) -> None:
    time = np.arange(10 * WHISPER_SAMPLE_RATE) / WHISPER_SAMPLE_RATE
    noise = np.random.default_rng(1).normal(0, 0.05, time.size)
    pcm = {"silence": 0 * time, "noise": noise, "hum": 0.3 * np.sin(2 * np.pi * 50 * time), "nothing": time[:0]}[kind]
    assert speech_windows(pcm.astype(np.float32)) == []


def test_times_are_those_of_the_recording(engine: SttEngine, sentence: Pcm) -> None:
    heard = transcribe(engine, np.concatenate([silence(30), sentence]))
    assert text_of(heard) == "some words"
    assert 29 <= heard.segments[0].start <= 31


def test_the_language_of_the_first_window_holds_for_all(
    engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm
) -> None:
    heard = transcribe(engine, np.concatenate([sentence, silence(40), sentence]))
    assert heard.language == "en"
    assert [options.language for _, options in fake_transcription.calls] == [None, "en"]


def test_a_given_language_is_checked(engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm) -> None:
    transcribe(engine, sentence, language="FR ")
    assert fake_transcription.calls[-1][1].language == "fr"
    with pytest.raises(InvalidLanguage, match="'dee'; did you mean de"):
        transcribe(engine, sentence, language="dee")
    with pytest.raises(InvalidLanguage, match="only: de, en, fr"):
        transcribe(engine, sentence, language="xyzzy")
    assert transcribe(engine, sentence, language="").language == "en"


def test_a_very_short_recording_is_padded(engine: SttEngine, fake_transcription: FakeTranscription) -> None:
    transcribe(engine, np.ones(10, dtype=np.float32))
    assert all(samples >= WHISPER_SAMPLE_RATE // 2 for samples, _ in fake_transcription.calls)
