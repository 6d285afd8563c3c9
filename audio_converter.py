"""PCM to encoded audio, chunk by chunk, in the six response formats.

The way back, from an upload to PCM, stands in `audio_decoder.py`, and changes of tempo and sample rate in
`audio_filters.py`. Both are offered here too, so that the rest of speechd imports audio from one place. Only these
three know FFmpeg, through PyAV; they know no HTTP and no settings.
"""

import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self, cast

import av
import numpy as np
from numpy.typing import NDArray

from audio_decoder import MAX_DECODE_SECONDS, decode
from audio_filters import Resampler, TimeStretcher, audio_frame, bounded, conversion_failed
from errors import ConversionFailed, InvalidFormat

__all__ = [
    "FORMATS",
    "MAX_DECODE_SECONDS",
    "AudioFormat",
    "Encoder",
    "Resampler",
    "TimeStretcher",
    "decode",
    "library_versions",
]

logger = logging.getLogger(__name__)

PCM_SAMPLE_RATE = 24_000  # Hz; what the contract says of `pcm`
INT16_MAX = 32_767
WAV_HEADER_AFTER_RIFF_BYTES = 36
WAV_UNKNOWN_SIZE = 0xFFFFFFFF  # what players take for "until the stream ends"

# Bits per second. All are clear for one voice; they are constant so that a long text costs what it seems to.
MP3_BIT_RATE = 96_000
MP3_LOW_BIT_RATE = 64_000  # the most that MPEG-2.5 (12 kHz and below) allows
MP3_LOW_SAMPLE_RATE = 12_000  # Hz
AAC_BIT_RATE = 64_000
OPUS_BIT_RATE = 48_000

# One FFmpeg frame of a chunk. A whole book in one chunk would otherwise be copied several times over.
MAX_FRAME_SAMPLES = 48_000


@dataclass(frozen=True)
class AudioFormat:
    """One response format, as clients name it and as HTTP labels it."""

    name: str
    content_type: str
    extension: str


FORMATS: Mapping[str, AudioFormat] = MappingProxyType(
    {
        "mp3": AudioFormat("mp3", "audio/mpeg", "mp3"),
        "opus": AudioFormat("opus", "audio/opus", "opus"),
        "aac": AudioFormat("aac", "audio/aac", "aac"),
        "flac": AudioFormat("flac", "audio/flac", "flac"),
        "wav": AudioFormat("wav", "audio/wav", "wav"),
        "pcm": AudioFormat("pcm", "audio/pcm", "pcm"),
    }
)


@dataclass(frozen=True)
class _Codec:
    """How FFmpeg writes one format. An empty `sample_rates` means that every rate will do."""

    muxer: str
    encoder: str
    sample_format: str
    sample_rates: tuple[int, ...]  # Hz, ascending
    bit_rate: int  # bits per second; 0 for a lossless codec
    muxer_options: Mapping[str, str]


MPEG_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_CODECS: Mapping[str, _Codec] = {
    # A Xing header holds the length of the file, which a stream does not know yet.
    "mp3": _Codec(
        "mp3", "libmp3lame", "s16p", MPEG_SAMPLE_RATES, MP3_BIT_RATE, {"write_xing": "0", "id3v2_version": "0"}
    ),
    # Opus always plays at 48 kHz. One packet (20,000 µs) a page: by default a page waits for a second of sound.
    "opus": _Codec("ogg", "libopus", "s16", (48_000,), OPUS_BIT_RATE, {"page_duration": "20000"}),
    "aac": _Codec("adts", "aac", "fltp", MPEG_SAMPLE_RATES, AAC_BIT_RATE, {}),
    # The default padding, 8 KiB for later tags, would only delay the first sound.
    "flac": _Codec("flac", "flac", "s16", (), 0, {"metadata_header_padding": "0"}),
}
# `bitexact` keeps FFmpeg's version and random serial numbers out: the same sound gives the same bytes.
_MUXER_OPTIONS = {"flush_packets": "1", "fflags": "+bitexact"}


class _Sink:
    """What FFmpeg writes to. It can't seek, so muxers write what suits a stream."""

    def __init__(self) -> None:
        self.closed = False
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        self._buffer += data
        return len(data)

    def take(self) -> bytes:
        """Everything written since the last call."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class _FFmpegWriter:
    """int16 samples in, bytes of a file of one codec out."""

    def __init__(self, codec: _Codec, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._samples = 0
        self._sink = _Sink()
        options = {**_MUXER_OPTIONS, **codec.muxer_options}
        self._container = av.open(self._sink, "w", format=codec.muxer, container_options=options)
        stream = self._container.add_stream(
            codec.encoder, rate=sample_rate, layout="mono", format=codec.sample_format, bit_rate=codec.bit_rate
        )
        self._stream: av.AudioStream | None = cast(av.AudioStream, stream)
        self._container.start_encoding()

    def write(self, samples: NDArray[np.int16]) -> bytes:
        for start in range(0, samples.size, MAX_FRAME_SAMPLES):
            self._encode(
                audio_frame(samples[start : start + MAX_FRAME_SAMPLES], "s16", self._sample_rate, self._samples + start)
            )
        self._samples += samples.size
        return self._sink.take()

    def finish(self) -> bytes:
        # Without a first sample, some encoders have nothing that they could flush.
        if self._samples:
            self._encode(None)
        self._stream = None
        self._container.close()  # writes what the muxer kept, such as the last page of an Ogg file
        return self._sink.take()

    def close(self) -> None:
        # PyAV skips the trailer of a file that is closed, and frees everything all the same.
        self._sink.closed = True
        self._stream = None
        self._container.close()

    def _encode(self, frame: av.AudioFrame | None) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(frame))


class _RawWriter:
    """int16 samples in, the same as little-endian bytes out, after an optional header."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def write(self, samples: NDArray[np.int16]) -> bytes:
        header, self._header = self._header, b""
        return header + samples.astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def close(self) -> None:
        pass


class Encoder:
    """float32 PCM chunks in, bytes of one valid file out, some with every chunk of half a second.

    response_format: a key of `FORMATS`; InvalidFormat (param="response_format") for any other name.
    sample_rate: Hz of the chunks. pcm comes out at 24 kHz, opus at 48 kHz, mp3 and aac at the next rate that they know.
    total_samples: the length of the whole, where it is known. A wav file then carries its size, and ConversionFailed is
        raised when the samples turn out to be more or fewer. Without it a wav file carries 0xFFFFFFFF.

    Bit rates: mp3 96 kbit/s (64 at 12 kHz and below), aac 64, opus 48. One thread at a time may use it.
    """

    def __init__(self, response_format: str, sample_rate: int, *, total_samples: int | None = None) -> None:
        if response_format not in FORMATS:
            names = ", ".join(FORMATS)
            raise InvalidFormat(
                f"There is no response format {response_format!r}; it can be {names}.", param="response_format"
            )
        self._total_samples = total_samples
        self._samples = 0
        self._closed = False
        target_rate = _encoded_rate(response_format, sample_rate)
        self._resampler = Resampler(sample_rate, target_rate)
        try:
            self._writer = _writer(response_format, target_rate, total_samples)
        except av.FFmpegError as error:
            raise conversion_failed(error) from error

    def encode(self, pcm: NDArray[np.float32]) -> bytes:
        """The bytes that `pcm` completes.

        pcm: float32, shape (samples,), in [-1, 1]; what lies outside is clipped, NaN becomes silence.
        Raises ConversionFailed when FFmpeg fails, after `finish` or `close`, and beyond `total_samples`.
        """
        self._require_open()
        self._samples += pcm.size
        if self._total_samples is not None and self._samples > self._total_samples:
            self._fail_by_length()
        return self._write(self._resampler.resample(bounded(pcm)), last=False)

    def finish(self) -> bytes:
        """The rest of the file; closes the encoder.

        Raises ConversionFailed when FFmpeg fails, when called again, and when fewer than `total_samples` were given.
        """
        self._require_open()
        if self._total_samples is not None and self._samples != self._total_samples:
            self._fail_by_length()
        data = self._write(self._resampler.finish(), last=True)
        self._closed = True
        return data

    def close(self) -> None:
        """Gives up the file and frees what FFmpeg holds. May be called at any time, and again."""
        if not self._closed:
            self._closed = True
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, pcm: NDArray[np.float32], *, last: bool) -> bytes:
        try:
            data = self._writer.write(_to_int16(pcm))
            return data + self._writer.finish() if last else data
        except av.FFmpegError as error:
            self.close()
            raise conversion_failed(error) from error

    def _require_open(self) -> None:
        if self._closed:
            raise ConversionFailed("The audio could not be encoded: its encoder is closed.")

    def _fail_by_length(self) -> None:
        self.close()
        logger.debug("%d samples given, %s announced", self._samples, self._total_samples)
        raise ConversionFailed("The audio could not be encoded: it is not as long as announced.")


def library_versions() -> dict[str, str]:
    """The versions of FFmpeg, of each of its libraries, and of PyAV."""
    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"ffmpeg": av.ffmpeg_version_info, **libraries, "pyav": av.__version__}


def _writer(response_format: str, sample_rate: int, total_samples: int | None) -> _FFmpegWriter | _RawWriter:
    if response_format == "pcm":
        return _RawWriter()
    if response_format == "wav":
        return _RawWriter(_wav_header(sample_rate, total_samples))
    codec = _CODECS[response_format]
    if response_format == "mp3" and sample_rate <= MP3_LOW_SAMPLE_RATE:
        codec = _Codec(**{**vars(codec), "bit_rate": MP3_LOW_BIT_RATE})
    return _FFmpegWriter(codec, sample_rate)


def _encoded_rate(response_format: str, sample_rate: int) -> int:
    """The rate itself where the format knows it, otherwise the next one above, which loses nothing."""
    if response_format == "pcm":
        return PCM_SAMPLE_RATE
    rates = _CODECS[response_format].sample_rates if response_format in _CODECS else ()
    if not rates:
        return sample_rate
    return next((rate for rate in rates if rate >= sample_rate), rates[-1])


def _wav_header(sample_rate: int, total_samples: int | None) -> bytes:
    """The 44 bytes before the samples. A file over 4 GiB can't say its size and counts as one of unknown size."""
    data_bytes = WAV_UNKNOWN_SIZE if total_samples is None else 2 * total_samples
    riff_bytes = data_bytes + WAV_HEADER_AFTER_RIFF_BYTES
    if riff_bytes > WAV_UNKNOWN_SIZE:
        data_bytes = riff_bytes = WAV_UNKNOWN_SIZE
    layout = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", data_bytes)


def _to_int16(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded. Clipped once more, because resampling can overshoot."""
    return np.rint(np.clip(pcm, -1.0, 1.0) * INT16_MAX).astype(np.int16)
