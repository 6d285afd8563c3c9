"""Encoding, decoding, tempo and sample rate, with the real FFmpeg. PyAV reads what the encoder wrote."""

import io
import struct
import wave
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from audio_converter import FORMATS, Encoder, Resampler, TimeStretcher, decode, library_versions
from errors import ConversionFailed, InvalidAudio, InvalidFormat, InvalidSpeed

Pcm = NDArray[np.float32]

RATE = 24_000  # Hz, of most models
TONE = 440  # Hz
SAMPLE_RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)

# How much longer than what went in a file may play, in samples at its own rate. mp3 and aac carry the silence that
# their codecs start with, and fill their last frame. A file is never shorter, but for one sample of resampling.
MAX_EXTRA_SAMPLES = {"mp3": 3 * 1_152, "aac": 2 * 1_024, "opus": 0, "flac": 0, "wav": 0, "pcm": 0}


def tone(seconds: float, rate: int = RATE, frequency: float = TONE, amplitude: float = 0.5) -> Pcm:
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def speech_like(seconds: float, rate: int = RATE) -> Pcm:
    """Tones and noise that swell and fade, so that no two places sound alike."""
    noise = np.random.default_rng(7).standard_normal(round(seconds * rate)).astype(np.float32)
    swell = np.abs(np.sin(np.arange(noise.size) / rate * 5)).astype(np.float32)
    return (swell * (tone(seconds, rate, 180, 0.3) + tone(seconds, rate, 900, 0.2) + 0.02 * noise)).astype(np.float32)


def encoded(response_format: str, chunks: Iterable[Pcm], rate: int = RATE, total: int | None = None) -> bytes:
    with Encoder(response_format, rate, total_samples=total) as encoder:
        return b"".join([encoder.encode(chunk) for chunk in chunks] + [encoder.finish()])


def cut(pcm: Pcm, size: int) -> list[Pcm]:
    return [pcm[start : start + size] for start in range(0, pcm.size, size)]


def cut_at_random(pcm: Pcm) -> list[Pcm]:
    """Pieces of 0 to 4,000 samples."""
    sizes = np.random.default_rng(1).integers(0, 4_000, 200)
    sizes[:2] = sizes[20:22] = 0
    return np.split(pcm, np.minimum(np.cumsum(sizes), pcm.size))


def read_back(data: bytes, response_format: str) -> tuple[Pcm, int]:
    """What PyAV finds in a file: samples and their rate."""
    if response_format == "pcm":
        return (np.frombuffer(data, "<i2") / 32_768).astype(np.float32), 24_000
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.layout.nb_channels == 1
        to_float = av.AudioResampler(format="flt", layout="mono")
        frames = [each for frame in container.decode(stream) for each in to_float.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32), stream.sample_rate


def peak_frequency(pcm: Pcm, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    return float(np.argmax(spectrum) * rate / pcm.size)


def rms(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64))))


def best_correlation(heard: Pcm, meant: Pcm) -> float:
    """Of `meant` with the place in `heard` where it fits best."""
    products = np.fft.irfft(np.fft.rfft(heard, 2 * heard.size) * np.conj(np.fft.rfft(meant, 2 * heard.size)))
    shift = int(np.argmax(products[: heard.size - meant.size + 1]))
    part = heard[shift : shift + meant.size]
    return float(np.dot(part, meant) / (np.linalg.norm(part) * np.linalg.norm(meant)))


# Encoding


@pytest.mark.parametrize("response_format", FORMATS)
@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_every_format_and_rate_plays_what_was_meant(response_format: str, rate: int) -> None:
    heard, heard_rate = read_back(encoded(response_format, cut(tone(2, rate), rate // 2), rate), response_format)

    expected_samples = 2 * heard_rate
    assert -1 <= heard.size - expected_samples <= MAX_EXTRA_SAMPLES[response_format] + 1
    middle = heard[heard_rate // 2 : -heard_rate // 2]
    assert peak_frequency(middle, heard_rate) == pytest.approx(TONE, abs=2)
    # LAME takes 5 % off, so that its own ripple does not clip.
    loudness = 0.95 if response_format == "mp3" else 1
    assert rms(middle) == pytest.approx(loudness * 0.5 / np.sqrt(2), rel=0.03)
    if response_format in ("pcm", "opus"):
        assert heard_rate == {"pcm": 24_000, "opus": 48_000}[response_format]


@pytest.mark.parametrize("response_format", FORMATS)
def test_the_sound_stays_the_same_sound(response_format: str) -> None:
    meant = speech_like(2, 48_000)
    heard, heard_rate = read_back(encoded(response_format, [meant], 48_000), response_format)
    inner = meant[4_800:-4_800]
    if heard_rate != 48_000:
        resampler = Resampler(48_000, heard_rate)
        inner = np.concatenate((resampler.resample(inner), resampler.finish()))[2_000:-2_000]

    assert best_correlation(heard, inner) > 0.98


@pytest.mark.parametrize("response_format", FORMATS)
@pytest.mark.parametrize("rate", [24_000, 22_050, 11_025])
def test_the_cuts_between_chunks_leave_no_trace(response_format: str, rate: int) -> None:
    pcm = speech_like(3, rate)
    whole = encoded(response_format, [pcm], rate)

    assert encoded(response_format, cut(pcm, rate // 2), rate) == whole
    assert encoded(response_format, cut_at_random(pcm), rate) == whole


@pytest.mark.parametrize("response_format", FORMATS)
def test_single_samples_are_chunks_too(response_format: str) -> None:
    pcm = speech_like(0.1)
    assert encoded(response_format, cut(pcm, 1)) == encoded(response_format, [pcm])


@pytest.mark.parametrize("response_format", FORMATS)
def test_a_very_long_chunk_is_the_same_as_many(response_format: str) -> None:
    pcm = np.tile(tone(1), 12)
    assert encoded(response_format, [pcm]) == encoded(response_format, cut(pcm, 7_777))


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_half_second_gives_bytes(response_format: str) -> None:
    with Encoder(response_format, RATE) as encoder:
        sizes = [len(encoder.encode(chunk)) for chunk in cut(speech_like(5), RATE // 2)]
    assert all(sizes), sizes


@pytest.mark.parametrize("samples", [1, 100, 959, 960, 961, 24_000, 24_001, 47_999])
def test_opus_plays_exactly_as_long_as_what_went_in(samples: int) -> None:
    heard, _ = read_back(encoded("opus", [tone(2, 48_000)[:samples]], 48_000), "opus")
    assert heard.size == samples


def test_opus_keeps_its_last_packet() -> None:
    pcm = np.concatenate((np.zeros(48_000, np.float32), tone(0.1, 48_000)))
    heard, _ = read_back(encoded("opus", [pcm], 48_000), "opus")
    assert rms(heard[-1_500:]) > 0.2


@pytest.mark.parametrize("response_format", FORMATS)
def test_no_samples_at_all_is_no_error(response_format: str) -> None:
    data = encoded(response_format, [])
    assert data == encoded(response_format, [np.empty(0, np.float32)])
    start = {"wav": b"RIFF", "flac": b"fLaC", "opus": b"OggS"}.get(response_format, b"")
    assert data[: len(start)] == start
    if response_format in ("mp3", "aac", "pcm"):
        assert data == b""


@pytest.mark.parametrize("response_format", ["mp3", "aac", "flac", "opus"])
def test_there_is_one_header_and_it_is_the_right_one(response_format: str) -> None:
    data = encoded(response_format, cut(speech_like(2), RATE // 4))
    if response_format == "mp3":
        assert data[0] == 0xFF
        assert not any(mark in data for mark in (b"Xing", b"Info", b"ID3", b"TAG"))
    if response_format == "aac":
        assert data[:2] == b"\xff\xf1"  # ADTS, MPEG-4, without a checksum
    if response_format == "flac":
        assert data.count(b"fLaC") == 1
    if response_format == "opus":
        assert data.count(b"OpusHead") == data.count(b"OpusTags") == 1


def test_lossless_formats_hold_the_rounded_samples() -> None:
    pcm = speech_like(1)
    meant = np.rint(np.clip(pcm, -1, 1) * 32_767).astype("<i2")

    assert encoded("pcm", [pcm]) == meant.tobytes()
    assert encoded("wav", [pcm])[44:] == meant.tobytes()
    heard, _ = read_back(encoded("flac", [pcm]), "flac")
    np.testing.assert_array_equal(heard * 32_768, meant)


def test_loud_and_broken_samples_neither_wrap_nor_fail() -> None:
    pcm = np.array([2, -2, 1, -1, 1.0001, np.nan, np.inf, -np.inf, 0], np.float32)
    heard = np.frombuffer(encoded("pcm", [pcm]), "<i2")
    np.testing.assert_array_equal(heard, [32_767, -32_767, 32_767, -32_767, 32_767, 0, 32_767, -32_767, 0])


@pytest.mark.parametrize("response_format", FORMATS)
def test_loud_sound_stays_the_same_tone(response_format: str) -> None:
    pcm = tone(1, amplitude=3)
    pcm[5_000] = np.nan
    heard, rate = read_back(encoded(response_format, [pcm]), response_format)

    assert np.isfinite(heard).all()
    assert peak_frequency(heard, rate) == pytest.approx(TONE, abs=2)


def test_a_wav_of_known_length_carries_its_size() -> None:
    data = encoded("wav", cut(tone(1.5), 1_000), total=36_000)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        assert file.getnframes() == 36_000
        assert len(file.readframes(40_000)) == 72_000
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8


def test_a_streamed_wav_carries_no_size() -> None:
    data = encoded("wav", cut(tone(1), 1_000))
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    assert (data[:4], data[8:16], data[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")
    with wave.open(io.BytesIO(data)) as file:
        assert file.getframerate() == RATE
    assert decode(data).size == 16_000


def test_a_wav_too_long_for_its_header_counts_as_unknown() -> None:
    with Encoder("wav", RATE, total_samples=2**31) as encoder:
        assert encoder.encode(tone(0.1))[40:44] == b"\xff\xff\xff\xff"


def test_a_wrong_length_is_an_error() -> None:
    with pytest.raises(ConversionFailed), Encoder("wav", RATE, total_samples=100) as encoder:
        encoder.encode(np.zeros(101, np.float32))
    with pytest.raises(ConversionFailed):
        encoded("wav", [np.zeros(99, np.float32)], total=100)


def test_unknown_formats_are_named() -> None:
    with pytest.raises(InvalidFormat, match="mp3, opus, aac, flac, wav, pcm") as caught:
        Encoder("midi", RATE)
    assert caught.value.param == "response_format"


def test_the_contract_s_content_types() -> None:
    types = {name: each.content_type for name, each in FORMATS.items()}
    assert types == {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }


@pytest.mark.parametrize("response_format", FORMATS)
def test_a_closed_encoder_stays_closed(response_format: str) -> None:
    encoder = Encoder(response_format, RATE)
    encoder.encode(tone(0.5))
    encoder.finish()
    encoder.close()
    encoder.close()
    with pytest.raises(ConversionFailed):
        encoder.finish()
    with pytest.raises(ConversionFailed):
        encoder.encode(tone(0.5))


def test_an_encoder_may_move_between_threads() -> None:
    pcm = speech_like(2)
    for response_format in FORMATS:
        encoder = Encoder(response_format, RATE)
        data = b""
        for chunk in cut(pcm, RATE // 2):
            with ThreadPoolExecutor(1) as thread:
                data += thread.submit(encoder.encode, chunk).result()
        with ThreadPoolExecutor(1) as thread:
            data += thread.submit(encoder.finish).result()
        assert data == encoded(response_format, [pcm])


def test_abandoned_encoders_leave_no_descriptors() -> None:
    def open_descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = open_descriptors()
    for _ in range(20):
        for response_format in FORMATS:
            with Encoder(response_format, RATE) as encoder:
                encoder.encode(tone(0.1))
        with pytest.raises(InvalidAudio):
            decode(b"not audio" * 100)
    assert open_descriptors() <= before


# Tempo and sample rate


def stretched(pcm: Pcm, tempo: float, chunk: int, rate: int = RATE) -> Pcm:
    stretcher = TimeStretcher(rate, tempo)
    return np.concatenate([stretcher.stretch(each) for each in cut(pcm, chunk)] + [stretcher.finish()])


@pytest.mark.parametrize("tempo", [0.25, 0.4, 0.5, 0.8, 1.0, 1.2, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_tempo_changes_the_length_and_not_the_pitch(tempo: float, rate: int) -> None:
    heard = stretched(tone(3, rate), tempo, rate // 2, rate)
    assert heard.size == round(3 * rate / tempo)
    assert peak_frequency(heard, rate) == pytest.approx(TONE, abs=3)
    # Leaves out the edges, where the filter fades.
    assert rms(heard[heard.size // 8 : -heard.size // 8]) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("tempo", [0.5, 0.7, 1.5, 4.0])
def test_tempo_does_not_depend_on_the_chunks(tempo: float) -> None:
    pcm = speech_like(2)
    np.testing.assert_array_equal(stretched(pcm, tempo, 333), stretched(pcm, tempo, pcm.size))


@pytest.mark.parametrize("tempo", [0.25, 0.5, 2.0, 4.0])
def test_tempo_keeps_sounds_in_their_places(tempo: float) -> None:
    pcm = np.concatenate((np.zeros(RATE, np.float32), tone(1), np.zeros(RATE, np.float32), tone(1)))
    heard = stretched(pcm, tempo, RATE)
    parts = np.array_split(heard, 4)
    loudness = [rms(part[part.size // 5 : -part.size // 5]) for part in parts]
    assert loudness[0] < 0.01
    assert loudness[2] < 0.01
    assert loudness[1] == pytest.approx(0.35, abs=0.05)
    assert loudness[3] == pytest.approx(0.35, abs=0.05)
    assert rms(heard[-round(0.05 * RATE) :]) > 0.1


def test_tempo_of_nothing_is_nothing() -> None:
    stretcher = TimeStretcher(RATE, 1.5)
    assert stretcher.stretch(np.empty(0, np.float32)).size == 0
    assert stretcher.finish().size == 0


@pytest.mark.parametrize("tempo", [0.2, 4.1, 0, -1, float("nan"), float("inf")])
def test_tempo_has_limits(tempo: float) -> None:
    with pytest.raises(InvalidSpeed):
        TimeStretcher(RATE, tempo)


@pytest.mark.parametrize(("source", "target"), [(22_050, 24_000), (48_000, 16_000), (24_000, 24_000), (8_000, 48_000)])
def test_resampling_in_chunks_is_the_same_as_at_once(source: int, target: int) -> None:
    pcm = tone(2, source)
    whole, chunked = Resampler(source, target), Resampler(source, target)
    at_once = np.concatenate((whole.resample(pcm), whole.finish()))
    in_chunks = np.concatenate([chunked.resample(each) for each in cut_at_random(pcm)] + [chunked.finish()])

    np.testing.assert_array_equal(at_once, in_chunks)
    assert abs(at_once.size - 2 * target) <= 1
    assert peak_frequency(at_once, target) == pytest.approx(TONE, abs=1)


# Decoding: what must be read


def audio_file(
    muxer: str, codec: str, pcm: NDArray[np.generic], *, rate: int, layout: str = "mono", video: bool = False
) -> bytes:
    """A file that PyAV writes. pcm: float32, shape (channels, samples)."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        options = {"strict": "-2"} if codec == "vorbis" else {}
        picture: Any = container.add_stream("mpeg4", rate=10, width=64, height=64) if video else None
        stream: Any = container.add_stream(codec, rate=rate, layout=layout, options=options)
        if video:
            for shade in range(0, 200, 10):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def mono(rate: int, seconds: float = 2) -> Pcm:
    return tone(seconds, rate)[np.newaxis]


def stereo(rate: int) -> Pcm:
    return np.repeat(mono(rate), 2, axis=0)


UPLOADS: dict[str, Callable[[], bytes]] = {
    "wav 8 kHz": lambda: audio_file("wav", "pcm_s16le", mono(8_000), rate=8_000),
    "wav 8 bit": lambda: audio_file("wav", "pcm_u8", mono(16_000), rate=16_000),
    "wav 24 bit": lambda: audio_file("wav", "pcm_s24le", mono(48_000), rate=48_000),
    "wav float": lambda: audio_file("wav", "pcm_f32le", mono(16_000), rate=16_000),
    "wav mu-law": lambda: audio_file("wav", "pcm_mulaw", mono(8_000), rate=8_000),
    "wav stereo": lambda: audio_file("wav", "pcm_s16le", stereo(44_100), rate=44_100, layout="stereo"),
    "wav 96 kHz": lambda: audio_file("wav", "pcm_s16le", mono(96_000), rate=96_000),
    "mp3": lambda: audio_file("mp3", "libmp3lame", stereo(44_100), rate=44_100, layout="stereo"),
    "mpeg (layer 2)": lambda: audio_file("mp2", "mp2", mono(44_100), rate=44_100),
    "mpeg (program stream)": lambda: audio_file("mpeg", "mp2", mono(44_100), rate=44_100, video=True),
    "flac": lambda: audio_file("flac", "flac", stereo(44_100), rate=44_100, layout="stereo"),
    "aac": lambda: audio_file("adts", "aac", mono(22_050), rate=22_050),
    "m4a": lambda: audio_file("ipod", "aac", stereo(44_100), rate=44_100, layout="stereo"),
    "m4a alac": lambda: audio_file("ipod", "alac", mono(44_100), rate=44_100),
    "mp4 with video": lambda: audio_file("mp4", "aac", mono(48_000), rate=48_000, video=True),
    "webm": lambda: audio_file("webm", "libopus", mono(48_000), rate=48_000),
    "mkv with video": lambda: audio_file("matroska", "libopus", mono(48_000), rate=48_000, video=True),
    "ogg opus": lambda: audio_file("ogg", "libopus", mono(48_000), rate=48_000),
    "ogg vorbis": lambda: audio_file("ogg", "vorbis", stereo(44_100), rate=44_100, layout="stereo"),
    "ogg flac": lambda: audio_file("ogg", "flac", mono(16_000), rate=16_000),
    "aiff": lambda: audio_file("aiff", "pcm_s16be", mono(44_100), rate=44_100),
    "caf": lambda: audio_file("caf", "pcm_s16be", mono(44_100), rate=44_100),
}


@pytest.mark.parametrize("kind", UPLOADS)
def test_uploads_of_every_kind_are_heard(kind: str) -> None:
    heard = decode(UPLOADS[kind]())
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    # The codecs of the lossy kinds may add up to three of their frames.
    assert 32_000 - 200 <= heard.size <= 32_000 + 2_000
    assert peak_frequency(heard[4_000:28_000], 16_000) == pytest.approx(TONE, abs=2)
    assert rms(heard[4_000:28_000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


@pytest.mark.parametrize("response_format", [name for name in FORMATS if name != "pcm"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_what_speechd_says_it_can_hear(response_format: str, rate: int) -> None:
    heard = decode(encoded(response_format, [tone(1)]), sample_rate=rate)
    assert rate - rate // 50 <= heard.size <= rate * 1.15
    assert peak_frequency(heard, rate) == pytest.approx(TONE, abs=2)


def test_an_m4a_with_its_index_at_the_end_is_read_from_a_file(tmp_path: Path) -> None:
    data = UPLOADS["m4a"]()
    assert data.index(b"moov") > data.index(b"mdat")
    path = tmp_path / "upload.txt"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(1_000)  # wherever the one before stopped reading
        np.testing.assert_array_equal(decode(file), decode(data))
        assert not file.closed


def surround(*loud: int) -> bytes:
    channels = np.zeros((6, 48_000), np.float32)
    for channel in loud:
        channels[channel] = tone(1, 48_000, amplitude=0.9)
    return audio_file("wav", "pcm_s16le", channels, rate=48_000, layout="5.1")


def test_surround_is_mixed_down() -> None:
    front_left, centre = rms(decode(surround(0))), rms(decode(surround(2)))
    assert front_left > 0.05
    assert centre > front_left  # speech sits in the middle
    assert np.abs(decode(surround(0, 1, 2, 4, 5))).max() <= 1


def test_opposite_stereo_channels_cancel_and_one_alone_is_heard() -> None:
    left = tone(1, 44_100)
    opposite = audio_file("wav", "pcm_s16le", np.stack((left, -left)), rate=44_100, layout="stereo")
    alone = audio_file("wav", "pcm_s16le", np.stack((left, 0 * left)), rate=44_100, layout="stereo")
    assert rms(decode(opposite)) < 0.001
    assert rms(decode(alone)) == pytest.approx(0.25 / np.sqrt(2), rel=0.05)


def plain_wav(
    samples: bytes, *, rate: int = 16_000, channels: int = 1, claim: int | None = None, tags: bytes = b""
) -> bytes:
    size = len(samples) if claim is None else claim
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * channels * rate & 0xFFFFFFFF, 2 * channels, 16)
    chunk = b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVEfmt " + layout + tags + chunk


def int16(pcm: Pcm) -> bytes:
    return (pcm * 32_767).astype("<i2").tobytes()


@pytest.mark.parametrize("channels", [3, 4, 5, 7, 8])
def test_channels_without_names_are_mixed_down(channels: int) -> None:
    pcm = np.repeat(tone(1, 16_000, amplitude=0.3)[:, np.newaxis], channels, axis=1)
    heard = decode(plain_wav(int16(pcm), channels=channels))
    assert heard.size == 16_000
    assert peak_frequency(heard, 16_000) == pytest.approx(TONE, abs=2)


def test_tags_in_any_letters_do_no_harm() -> None:
    latin = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"\xe9\xff\xfe\x00"
    assert decode(plain_wav(int16(tone(1, 16_000)), tags=latin)).size == 16_000


def test_a_cover_is_no_obstacle() -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"\0" * 200
    body = b"\0image/png\0\x03\0" + picture
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame
    assert decode(tag + encoded("mp3", [tone(1)])).size > 16_000


def test_float_files_hold_anything() -> None:
    pcm = tone(1, 16_000)
    pcm[100:103] = np.nan, np.inf, 1e30
    heard = decode(audio_file("wav", "pcm_f32le", pcm[np.newaxis], rate=16_000))
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1


def test_a_claim_of_four_gigabytes_does_no_harm() -> None:
    assert decode(plain_wav(int16(tone(0.1, 16_000)), claim=0xFFFFFFF0)).size == 1_600


@pytest.mark.parametrize("kind", ["wav stereo", "mp3", "flac", "aac", "webm", "ogg opus", "aiff"])
def test_a_file_that_breaks_off_gives_what_there_is(kind: str) -> None:
    data = UPLOADS[kind]()
    heard = decode(data[: len(data) * 6 // 10])
    assert 0.25 * 32_000 < heard.size < 0.8 * 32_000
    assert peak_frequency(heard, 16_000) == pytest.approx(TONE, abs=2)


@pytest.mark.parametrize("kind", ["mp3", "flac", "aac", "ogg opus", "m4a"])
def test_a_damaged_middle_is_left_out(kind: str) -> None:
    data = bytearray(UPLOADS[kind]())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(3).bytes(300)
    heard = decode(bytes(data))
    # A page of this Ogg file holds a second, and goes as a whole.
    assert heard.size > (0.4 if kind == "ogg opus" else 0.9) * 32_000
    assert peak_frequency(heard[:8_000], 16_000) == pytest.approx(TONE, abs=3)


# Decoding: what must be refused


def playlist(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n".encode()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\0IEND\xaeB`\x82"
NOT_AUDIO = {
    "text": b"The quick brown fox jumps over the lazy dog.\n" * 200,
    "json": b'{"file": "a.wav"}',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "png": PNG,
    "http playlist": playlist("http://127.0.0.1:9/a.ts"),
    "html": b"<!doctype html><html><audio src=a.mp3></html>",
    "one byte": b"\0",
    "zeros": b"\0" * 100_000,
    "random": np.random.default_rng(0).bytes(100_000),
    "random again": np.random.default_rng(1).bytes(3_000),
    "mp3 frames of noise": (b"\xff\xfb\x90\xc4" + np.random.default_rng(2).bytes(60)) * 3,
    "an ogg page and no more": b"OggS\0\x02" + b"\0" * 60,
    "flac that ends at once": b"fLaC\x80\0\0\x22" + b"\0" * 34,
    "m4a without its index": UPLOADS["m4a"]()[:5_000],
}


@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_other_files_are_refused(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidAudio) as caught:
        decode(NOT_AUDIO[kind])
    assert caught.value.param == "file"
    assert caught.value.message.startswith("The file ")
    assert "Errno" not in caught.value.message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["upload.mp3", "upload.m3u8", "upload.wav"])
def test_a_file_that_names_another_file_does_not_get_it(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(plain_wav(int16(tone(1, 16_000))))
    for content in (
        playlist(secret.as_uri()),
        playlist(str(secret)),
        f"ffconcat version 1.0\nfile {secret}\n".encode(),
        f"ffconcat version 1.0\nfile '{secret.name}'\n".encode(),
        f"[playlist]\nFile1={secret}\n".encode(),
    ):
        upload = tmp_path / name
        upload.write_bytes(content)
        with upload.open("rb") as file, pytest.raises(InvalidAudio):
            decode(file)


def test_empty_and_silent_are_told_apart() -> None:
    with pytest.raises(InvalidAudio, match="is empty"):
        decode(b"")
    with pytest.raises(InvalidAudio, match="is empty"):
        decode(io.BytesIO())
    for data in (plain_wav(b""), encoded("wav", []), encoded("flac", []), encoded("opus", [])):
        with pytest.raises(InvalidAudio, match="holds no sound"):
            decode(data)


def test_a_film_without_sound_says_so() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture: Any = container.add_stream("mpeg4", rate=10, width=64, height=64)
        container.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(picture.encode(None))
    with pytest.raises(InvalidAudio, match="no audio stream"):
        decode(file.getvalue())


@pytest.mark.parametrize("rate", [1, 2, 100, 2**31 - 1, 2**32 - 1])
def test_a_wav_that_claims_an_absurd_rate_is_refused(rate: int) -> None:
    with pytest.raises(InvalidAudio):
        decode(plain_wav(b"\0" * 6_400, rate=rate))


@pytest.mark.parametrize("channels", [9, 32, 255, 20_000])
def test_absurd_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(InvalidAudio):
        decode(plain_wav(b"\0" * 160_000, channels=channels))


def test_too_much_sound_is_refused_early() -> None:
    class CountingFile(io.BytesIO):
        bytes_read = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    file = CountingFile(plain_wav(bytes(2 * 16_000 * 300)))
    with pytest.raises(InvalidAudio, match="up to 2 seconds"):
        decode(file, max_seconds=2)
    assert file.bytes_read < 1_000_000


@pytest.mark.parametrize("response_format", ["opus", "flac", "mp3"])
def test_silence_that_unpacks_to_hours_is_bounded(response_format: str) -> None:
    data = encoded(response_format, [np.zeros(60 * RATE, np.float32)])
    with pytest.raises(InvalidAudio, match="too long"):
        decode(data, max_seconds=30)
    assert 59 <= decode(data, max_seconds=61).size / 16_000 <= 61


def test_many_fast_channels_are_bounded_too() -> None:
    # 8 channels of 192 kHz are four times what a second of sound may take.
    data = plain_wav(bytes(8 * 2 * 192_000), rate=192_000, channels=8)
    with pytest.raises(InvalidAudio, match="too long"):
        decode(data, max_seconds=2)


def test_versions_are_known() -> None:
    versions = library_versions()
    assert {"ffmpeg", "libavcodec", "libavformat", "pyav"} <= versions.keys()
    assert all(versions.values())
