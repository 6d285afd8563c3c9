"""Mono float32 PCM, chunk by chunk, to another sample rate or tempo; and the few steps that conversions share.

It knows FFmpeg and soxr, and neither files nor formats: those stand in `audio_converter.py` and `audio_decoder.py`.
"""

import logging
import math
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import soxr
from numpy.typing import NDArray

from errors import ConversionFailed, InvalidSpeed

logger = logging.getLogger(__name__)

MIN_TEMPO = 0.25
MAX_TEMPO = 4.0
# Outside this range one atempo drops sound instead of blending it, so two share the change.
MIN_SINGLE_TEMPO = 0.5
MAX_SINGLE_TEMPO = 2.0
# What atempo gives depends a little on how its input is cut, so it always gets the same blocks.
STRETCH_BLOCK_SAMPLES = 1_024
# atempo keeps up to two windows of 1/12 s to itself at the end; this much silence drives them out.
STRETCH_TAIL_SECONDS = 0.25


class Resampler:
    """Changes the sample rate of mono float32 PCM, chunk by chunk, with soxr (high quality)."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """Both rates in Hz. Equal rates pass the sound through as it is."""
        same = source_rate == target_rate
        self._stream = None if same else soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32")

    def resample(self, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32, shape (samples,), at the target rate: what `pcm` completes, which may lag some ms behind."""
        return self._resampled(pcm, last=False)

    def finish(self) -> NDArray[np.float32]:
        """The samples that lagged behind. Call it once, at the end."""
        return self._resampled(np.empty(0, np.float32), last=True)

    def _resampled(self, pcm: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._stream is None:
            return pcm
        resampled: NDArray[np.float32] = self._stream.resample_chunk(np.ascontiguousarray(pcm, np.float32), last=last)
        return resampled


class TimeStretcher:
    """Changes the tempo of mono float32 PCM and keeps its pitch (FFmpeg's atempo), chunk by chunk.

    tempo: 0.25 to 4; 2 is twice as fast. InvalidSpeed (param="speed") outside.
    All the output together has the length of the input divided by `tempo`, rounded.
    """

    def __init__(self, sample_rate: int, tempo: float) -> None:
        if not MIN_TEMPO <= tempo <= MAX_TEMPO:
            raise InvalidSpeed(f"The speed must lie between {MIN_TEMPO} and {MAX_TEMPO:g}.", param="speed")
        self._sample_rate = sample_rate
        self._tempo = tempo
        self._graph = None if tempo == 1 else _tempo_graph(sample_rate, tempo)
        self._waiting = np.empty(0, np.float32)
        self._received = 0  # samples in
        self._pushed = 0  # samples that the filter has
        self._returned = 0  # samples out

    def stretch(self, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32, shape (samples,): what `pcm` completes, which may lag some ms behind.

        Raises ConversionFailed when FFmpeg fails.
        """
        if self._graph is None:
            return pcm
        self._received += pcm.size
        return self._passed(self._graph, bounded(pcm))

    def finish(self) -> NDArray[np.float32]:
        """The samples that lagged behind; frees the filter. Call it once, at the end."""
        if self._graph is None:
            return np.empty(0, np.float32)
        missing = max(0, round(self._received / self._tempo) - self._returned)
        tail_samples = round(STRETCH_TAIL_SECONDS * self._sample_rate * max(1.0, self._tempo))
        tail = self._passed(self._graph, np.zeros(tail_samples + STRETCH_BLOCK_SAMPLES, np.float32))
        self._graph = None
        return tail[:missing]

    def _passed(self, graph: av.filter.Graph, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        self._waiting = np.concatenate((self._waiting, pcm))
        stretched = []
        try:
            while self._waiting.size >= STRETCH_BLOCK_SAMPLES:
                block, self._waiting = np.split(self._waiting, [STRETCH_BLOCK_SAMPLES])
                graph.push(audio_frame(block, "flt", self._sample_rate, self._pushed))
                self._pushed += block.size
                stretched += _pulled(graph)
        except av.FFmpegError as error:
            raise conversion_failed(error) from error
        whole = np.concatenate(stretched) if stretched else np.empty(0, np.float32)
        self._returned += whole.size
        return whole


def bounded(pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 in [-1, 1]; NaN becomes silence. Before a filter, so that it can't smear them over their neighbours."""
    return np.clip(np.nan_to_num(pcm, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0).astype(np.float32, copy=False)


def audio_frame(
    samples: NDArray[np.int16] | NDArray[np.float32], sample_format: str, sample_rate: int, position: int
) -> av.AudioFrame:
    """One mono frame. position: of its first sample in the whole, in samples."""
    row: NDArray[Any] = np.ascontiguousarray(samples).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(row, format=sample_format, layout="mono")
    frame.sample_rate = sample_rate
    frame.pts = position
    frame.time_base = Fraction(1, sample_rate)
    return frame


def conversion_failed(error: av.FFmpegError) -> ConversionFailed:
    """What the client may know of it; FFmpeg's words go to the log."""
    logger.debug("FFmpeg could not convert: %s", error)
    return ConversionFailed("The audio could not be encoded.")


def _tempo_graph(sample_rate: int, tempo: float) -> av.filter.Graph:
    tempos = [tempo] if MIN_SINGLE_TEMPO <= tempo <= MAX_SINGLE_TEMPO else [math.sqrt(tempo)] * 2
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono", time_base=Fraction(1, sample_rate))
    filters = [graph.add("atempo", f"{each:.9f}") for each in tempos]
    graph.link_nodes(source, *filters, graph.add("abuffersink")).configure()
    return graph


def _pulled(graph: av.filter.Graph) -> list[NDArray[np.float32]]:
    """Everything that the filter has ready. Each frame's memory is FFmpeg's, so it is copied."""
    blocks: list[NDArray[np.float32]] = []
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return blocks
        if isinstance(frame, av.AudioFrame):
            blocks.append(frame.to_ndarray()[0].astype(np.float32))
