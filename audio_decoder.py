"""Uploads to PCM: whatever audio a client sends becomes mono float32 at one sample rate.

Only the content of an upload decides what it is. FFmpeg, through PyAV, may use the container formats and the decoders
listed here and may open nothing besides the upload, so a playlist can't pull in another file or address. How much is
decoded is bounded in seconds and in samples, whatever a header claims.

FFmpeg's own tables are not bounded here: the index of a hostile mp4 of 33 KB takes up to 2 GB before the first sample.
What reads files from strangers calls `decode` in a process of its own, with a limit on its memory.
"""

import io
import logging
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.container
import numpy as np
from numpy.typing import NDArray

from audio_filters import bounded
from errors import InvalidAudio

logger = logging.getLogger(__name__)

MAX_DECODE_SECONDS = 2 * 60 * 60.0  # 461 MB of float32 at 16 kHz
MIN_SOURCE_RATE = 1_000  # Hz; a header that says 1 Hz turns 1 KB into minutes of sound
MAX_SOURCE_RATE = 768_000  # Hz; beyond, the resampler's tables alone take gigabytes
MAX_CHANNELS = 8  # 7.1; of many numbers beyond, FFmpeg does not know how to mix them down
# Decoded, before mixing down: 8 channels of 48 kHz, or 2 of 192 kHz.
MAX_SOURCE_SAMPLES_PER_SECOND = 8 * 48_000  # 384,000

# Each reads one self-contained file. No playlist, no `concat`, no SDP, nothing that names a second file.
CONTAINER_FORMATS = ("wav", "mp3", "mov", "ogg", "flac", "aac", "matroska", "mpeg", "aiff", "caf", "amr")
# Audio only: a video's picture and an album's cover are never decoded, not even to look at their size.
DECODERS = (
    "aac", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "flac",
    "libopencore_amrnb", "libopencore_amrwb", "libopus", "libvorbis", "mp1", "mp1float", "mp2", "mp2float", "mp3",
    "mp3float", "opus", "pcm_alaw", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_mulaw", "pcm_s16be",
    "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_s8", "pcm_u8", "vorbis",
)  # fmt: skip
_OPEN_OPTIONS = {
    "format_whitelist": ",".join(CONTAINER_FORMATS),
    "codec_whitelist": ",".join(DECODERS),
    "protocol_whitelist": "",
}

# By default FFmpeg mixes floats down 3 dB louder or more, so that a loud stereo file clips.
_MIX_OPTIONS = {"rematrix_maxval": "1"}

NO_SOUND = "The file holds no sound that could be decoded."
NOT_AUDIO = (
    "The file is not audio that speechd can read; it accepts flac, mp3, mp4, mpeg, mpga, m4a, ogg, opus, wav and webm."
)


def decode(
    source: BinaryIO | bytes, *, sample_rate: int = 16_000, max_seconds: float = MAX_DECODE_SECONDS
) -> NDArray[np.float32]:
    """The sound of an audio or video file: float32, shape (samples,), in [-1, 1], mono, at `sample_rate` Hz.

    source: the whole file, as bytes or as a seekable binary file; it is read from its start and stays open.
    max_seconds: a file with more sound is refused as soon as that much has been decoded.

    Takes the first audio stream. A file that breaks off gives what could be decoded, and damaged packets are left out.
    Raises InvalidAudio (param="file") when the file is empty, is not audio, has no audio stream or no sound, when
    nothing in it can be decoded, or when it is too long.
    """
    upload = _Upload(io.BytesIO(source) if isinstance(source, bytes) else source)
    if upload.is_empty():
        raise _invalid("The file is empty.")
    try:
        container = av.open(upload, "r", options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        logger.debug("FFmpeg could not open an upload: %s", error)
        # An Ogg file of headers alone ends before FFmpeg knows what it holds.
        raise _invalid(NO_SOUND if isinstance(error, av.EOFError) else NOT_AUDIO) from error
    with container:
        return _decoded(container, sample_rate, max_seconds)


class _Upload:
    """A file that has no name for FFmpeg to guess from, and that FFmpeg can't close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def is_empty(self) -> bool:
        end = self.seek(0, io.SEEK_END)
        self.seek(0)
        return end == 0


class _Bounds:
    """Counts what has been decoded and refuses what goes beyond, before it is resampled."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._max_samples = max_seconds * MAX_SOURCE_SAMPLES_PER_SECOND
        self._seconds = 0.0
        self._samples = 0

    def count(self, frame: av.AudioFrame) -> None:
        channels = frame.layout.nb_channels
        if not MIN_SOURCE_RATE <= frame.sample_rate <= MAX_SOURCE_RATE:
            raise _invalid(f"The file has a sample rate of {frame.sample_rate} Hz, which speechd does not read.")
        if channels > MAX_CHANNELS:
            raise _invalid(f"The file has {channels} channels; speechd reads up to {MAX_CHANNELS}.")
        self._seconds += frame.samples / frame.sample_rate
        self._samples += frame.samples * channels
        if self._seconds > self._max_seconds or self._samples > self._max_samples:
            raise _invalid(f"The file is too long: speechd reads up to {self._max_seconds:g} seconds of sound.")


class _MonoResampler:
    """Frames of any kind in, mono float32 at one rate out. A stream may change its kind on the way."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._kind: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def resample(self, frame: av.AudioFrame) -> list[NDArray[np.float32]]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        blocks = []
        if kind != self._kind:
            blocks = self.finish()
            self._kind = kind
            self._resampler = av.AudioResampler(
                format="flt", layout="mono", rate=self._sample_rate, options=_MIX_OPTIONS
            )
        # A gap or a jump in the file's clock must not reach the filter.
        frame.pts = None
        return blocks + self._resampled(frame)

    def finish(self) -> list[NDArray[np.float32]]:
        blocks = self._resampled(None)
        self._resampler = None
        return blocks

    def _resampled(self, frame: av.AudioFrame | None) -> list[NDArray[np.float32]]:
        if self._resampler is None:
            return []
        frames = self._resampler.resample(frame)
        # Files of floating point can hold NaN, and any number.
        return [bounded(each.to_ndarray()[0]) for each in frames if each is not None]


def _decoded(container: av.container.InputContainer, sample_rate: int, max_seconds: float) -> NDArray[np.float32]:
    stream = _audio_stream(container)
    bounds = _Bounds(max_seconds)
    resampler = _MonoResampler(sample_rate)
    # A bytearray grows in place: a list of arrays would need twice the memory when it is joined.
    pcm = bytearray()
    try:
        for frame in _frames(container, stream):
            bounds.count(frame)
            for block in resampler.resample(frame):
                pcm += block.data
        for block in resampler.finish():
            pcm += block.data
    except av.FFmpegError as error:
        # A layout that can't be mixed down, for one.
        logger.debug("FFmpeg could not resample an upload: %s", error)
        raise _invalid(NOT_AUDIO) from error
    if not pcm:
        raise _invalid(NO_SOUND)
    return np.frombuffer(pcm, np.float32)


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise _invalid("The file has no audio stream.")
    stream = container.streams.audio[0]
    # PyAV opens its own decoder, to which FFmpeg's list does not apply. Without a codec there is no context at all.
    if stream.codec_context is None or stream.codec_context.codec.name not in DECODERS:
        raise _invalid(NOT_AUDIO)
    return stream


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Every frame that can be had: damaged packets are left out, a file that breaks off ends there."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            logger.debug("FFmpeg could not read on in an upload: %s", error)
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            logger.debug("FFmpeg left out a packet of an upload: %s", error)


def _invalid(message: str) -> InvalidAudio:
    return InvalidAudio(message, param="file")
