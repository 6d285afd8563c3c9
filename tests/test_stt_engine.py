"""The transcription engine: windows, times, languages, translation, cancelling, and silence."""

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backends.protocols import WHISPER_SAMPLE_RATE, Pcm, Segment, Transcript, TranscriptionOptions, Word
from errors import InvalidLanguage, InvalidRequest
from inference_thread import InferenceThread, Timing
from stt_engine import Heard, SttEngine
from tests.conftest import clip_pcm
from tests.fakes import FakeTranscription
from voice_activity import AUTO, MAX_WINDOW_SECONDS, VoiceActivity, speech_windows


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


def transcribe(engine: SttEngine, pcm: Pcm, **options: Any) -> Transcript:
    return asyncio.run(engine.transcribe(pcm, TranscriptionOptions(**options)))


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
    assert [segment.text for segment in heard.segments] == [" some words"]
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


def test_what_counts_as_speech_can_be_set(sentence: Pcm) -> None:
    pcm = np.concatenate([silence(5), sentence, silence(1), sentence, silence(5)])
    (auto,) = speech_windows(pcm)
    (padded,) = speech_windows(pcm, VoiceActivity(prefix_padding_ms=2_000))
    assert padded.start < auto.start
    assert padded.end > auto.end
    assert speech_windows(pcm, VoiceActivity(threshold=1.0)) == []
    for activity in (AUTO, VoiceActivity(), VoiceActivity(0.0, 60_000, 60_000)):
        windows = speech_windows(np.tile(pcm, 4), activity)
        assert windows
        assert all(0 < window.end - window.start <= MAX_WINDOW_SECONDS * WHISPER_SAMPLE_RATE for window in windows)


def test_segments_words_and_seek_move_to_where_their_window_is(
    engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm
) -> None:
    pcm = np.concatenate([silence(30), sentence, silence(40), sentence])
    windows = speech_windows(pcm)
    heard = transcribe(engine, pcm, words=True, logprobs=True)
    assert len(heard.segments) == len(windows) == 2
    for segment, window in zip(heard.segments, windows, strict=True):
        start = window.start / WHISPER_SAMPLE_RATE
        assert (segment.start, segment.end) == pytest.approx((start, start + 1.0), abs=0.001)
        assert segment.seek == pytest.approx(100 * start, abs=0.51)
        assert [word.word for word in segment.words] == ["some", "words"]
        assert [word.start for word in segment.words] == pytest.approx([start, start + 0.5], abs=0.001)
        assert [each.token for each in segment.logprobs] == [" some", " words"]


def test_no_time_lies_outside_the_recording(sentence: Pcm) -> None:
    class Late(FakeTranscription):
        """Whisper's timestamps may lie in the padding behind the sound."""

        def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
            return Transcript([Segment(0.5, 30.0, " late", seek=100, words=[Word(0.5, 29.0, "late")])], "en")

    thread = InferenceThread("test")
    (segment,) = transcribe(SttEngine(Late(), thread), sentence).segments
    thread.close()
    seconds = len(sentence) / WHISPER_SAMPLE_RATE
    assert segment.start < segment.end <= seconds
    assert segment.words[0].end <= seconds
    assert segment.seek >= 100


def test_the_most_probable_candidate_is_the_language(
    engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm
) -> None:
    heard = transcribe(engine, np.concatenate([sentence, silence(40), sentence]), languages=("fr", "DE ", "fr", ""))
    assert heard.language == "de"
    assert [options.language for _, options in fake_transcription.calls] == ["de", "de"]


def test_one_candidate_is_the_language(engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm) -> None:
    fake_transcription.probabilities = {}
    assert transcribe(engine, sentence, languages=("fr",)).language == "fr"
    assert transcribe(engine, sentence, languages=("de", "fr"), language="en").language == "en"


def test_candidates_decide_nothing_where_the_model_cant_tell(
    engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm
) -> None:
    fake_transcription.probabilities = {}
    assert transcribe(engine, sentence, languages=("de", "fr")).language is None


@pytest.mark.parametrize(
    ("options", "param"), [({"language": "xx"}, "language"), ({"languages": ("en", "xx")}, "languages")]
)
def test_an_unknown_language_is_refused_by_its_parameter(
    engine: SttEngine, fake_transcription: FakeTranscription, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidLanguage) as refused:
        transcribe(engine, silence(1), **options)
    assert refused.value.param == param
    assert fake_transcription.calls == []


def test_a_model_that_cant_translate_is_refused(
    engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm
) -> None:
    assert transcribe(engine, sentence, task="translate").segments
    assert fake_transcription.calls[-1][1].task == "translate"
    fake_transcription.translates = False
    with pytest.raises(InvalidRequest, match="whisper-base") as refused:
        transcribe(engine, sentence, task="translate")
    assert refused.value.param == "model"


def test_the_options_reach_the_model(engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm) -> None:
    wanted = TranscriptionOptions("en", (), "a prompt", ("Word",), 0.5, "transcribe", words=True, logprobs=True)
    transcribe(engine, sentence, **dataclasses.asdict(wanted))
    assert fake_transcription.calls[-1][1] == wanted


def test_windows_are_heard_one_by_one(engine: SttEngine, fake_transcription: FakeTranscription, sentence: Pcm) -> None:
    async def stream() -> list[Heard]:
        pcm = np.concatenate([sentence, silence(40), sentence])
        return [heard async for heard in engine.stream(pcm, TranscriptionOptions(), timing=timing)]

    timing = Timing()
    heard = asyncio.run(stream())
    assert [([segment.text for segment in each.segments], each.language) for each in heard] == [
        ([" some words"], "en")
    ] * 2
    assert timing.model > 0


def test_closing_the_stream_cancels_the_windows_that_are_left(sentence: Pcm) -> None:
    class Patient(FakeTranscription):
        """Waits with its second window until the first has been read."""

        def transcribe(self, pcm: Pcm, options: TranscriptionOptions) -> Transcript:
            if self.calls:
                assert closed.wait(timeout=30)
            return super().transcribe(pcm, options)

    async def read_one() -> None:
        stream = engine.stream(np.tile(np.concatenate([sentence, silence(30)]), 4), TranscriptionOptions())
        assert (await anext(stream)).segments
        await stream.aclose()
        closed.set()
        await engine.thread.call(lambda: None)  # the thread goes on with other work

    closed = threading.Event()
    backend = Patient()
    engine = SttEngine(backend, InferenceThread("test"))
    asyncio.run(read_one())
    engine.thread.close()
    assert 1 <= len(backend.calls) <= 2
