"""How much faster `mlx_cpu.accelerate` makes MLX on this machine's CPU: `python -m benchmarks.mlx_cpu`.

Both sides run in turn on the same machine, each time in a fresh process, since a BLAS can't be taken out again.
"Without" is MLX and mlx-audio as they are shipped (Whisper in float16); "with" is what speechd runs (all in float32).
Seconds are wall-clock time after a warm-up. It takes five minutes on two quiet cores, nearly all of it without.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import mlx_cpu
from audio_converter import decode
from backends.mlx_transcription import cast_whisper_to_float32
from backends.protocols import WHISPER_SAMPLE_RATE
from config import Settings
from embedded_models import checkpoint

GOALS = {"Kokoro": 10.0, "Whisper base": 5.0}
"""The least ratio of the time without to the time with."""

VOICE = "af_heart"
WARM_UP_PHONEMES = "."  # half a second, the least that Kokoro says
PHONEMES = "hˈɛlO wˈɜɹld."  # 1.5 s of speech: without help, each second takes the better part of a minute
CLIP_SECONDS = 10
WARM_UP_SECONDS = 1

ROUNDS = {"operations": "-+-+", "kokoro": "+-+", "whisper": "+-+"}
"""The order of the processes: + with, - without. The slow ones run once, between two that show whether speed drifts."""
WORKER_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Timing:
    """One case on one side."""

    case: str
    seconds: float
    size: float
    """What was done in that time: GFLOP, or seconds of audio."""
    unit: str
    """What size ÷ seconds, or seconds ÷ size, is called: GFLOP/s or RTF."""

    @property
    def rate(self) -> float:
        return self.size / self.seconds if self.unit == "GFLOP/s" else self.seconds / self.size


@dataclass(frozen=True)
class Comparison:
    """One row of the table: medians, and their ratio."""

    case: str
    without: Timing
    accelerated: Timing
    ratio: float
    goal: float | None

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return f"≥ {self.goal:g}: {'met' if self.ratio >= self.goal else 'NOT MET'}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mlx_cpu", description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Settings().cache_dir, help="where the converted models are")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--worker", choices=ROUNDS, help=argparse.SUPPRESS)
    parser.add_argument("--accelerate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(arguments.worker, arguments.cache_dir, arguments.accelerate)
        return
    comparisons = [row for worker in ROUNDS for row in compare(worker, arguments.cache_dir)]
    print_table(comparisons)
    if arguments.json:
        rows = [asdict(row) for row in comparisons]
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2), encoding="utf-8")


# --- The process that compares ---------------------------------------------------------------------------------------


def compare(worker: str, cache_dir: Path) -> list[Comparison]:
    """Run a worker on both sides in turn; a row for each of its cases."""
    timings: dict[bool, dict[str, list[Timing]]] = {True: {}, False: {}}
    for side in ROUNDS[worker]:
        accelerated = side == "+"
        print(f"{worker}, {'with' if accelerated else 'without'} …", file=sys.stderr)
        for timing in timings_of_worker(worker, cache_dir, accelerated):
            timings[accelerated].setdefault(timing.case, []).append(timing)
    rows = []
    for case in timings[True]:
        without, accelerated_one = median(timings[False][case]), median(timings[True][case])
        # Per unit of work: float16 and float32 may speak a frame more or less.
        ratio = (without.seconds / without.size) / (accelerated_one.seconds / accelerated_one.size)
        rows.append(Comparison(case, without, accelerated_one, ratio, GOALS.get(case)))
    return rows


def timings_of_worker(worker: str, cache_dir: Path, accelerated: bool) -> Iterator[Timing]:
    command = [sys.executable, "-m", "benchmarks.mlx_cpu", "--worker", worker, "--cache-dir", str(cache_dir)]
    if accelerated:
        command.append("--accelerate")
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, timeout=WORKER_TIMEOUT_SECONDS)
    *_, figures = done.stdout.decode().splitlines()  # mlx-audio may print before them
    for figure in json.loads(figures):
        yield Timing(**figure)


def median(timings: list[Timing]) -> Timing:
    seconds = statistics.median(timing.seconds for timing in timings)
    return Timing(timings[0].case, seconds, timings[0].size, timings[0].unit)


def print_table(comparisons: list[Comparison]) -> None:
    table = Table("", "without", "with", "faster", "goal")
    for row in comparisons:
        sides = [f"{side.seconds:.3f} s ({side.rate:.3g} {side.unit})" for side in (row.without, row.accelerated)]
        table.add_row(row.case, *sides, f"{row.ratio:.1f} ×", row.verdict)
    console = Console(width=120)
    for name, value in machine().items():
        console.print(f"{name}: {value}", highlight=False)
    console.print(table)


def machine() -> dict[str, str]:
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("mlx", "mlx-audio", "scipy", "numpy"))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return {
        "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}, {cpus} CPUs, load {load}",
        "versions": f"Python {platform.python_version()} {versions}",
    }


def cpu_name() -> str:
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return platform.processor()
    fields = (line.partition(":") for line in described.read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in fields if name.strip() == "model name"), platform.processor())


# --- The processes that are compared ---------------------------------------------------------------------------------


def run_worker(worker: str, cache_dir: Path, accelerated: bool) -> None:
    """Print the timings of one side as a line of JSON."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if accelerated:
        mlx_cpu.accelerate(cache_dir)
    if worker == "operations":
        timings = time_operations()
    elif worker == "kokoro":
        timings = [time_kokoro(checkpoint("kokoro-82m", "mlx", cache_dir))]
    else:
        timings = [time_whisper(checkpoint("whisper-base", "mlx", cache_dir), accelerated)]
    print(json.dumps([asdict(timing) for timing in timings]))


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def time_operations() -> list[Timing]:
    """The product that Whisper base's encoder is made of, and convolutions of Kokoro's shapes, but shorter."""
    import mlx.core as mx

    def normal(*shape: int) -> Any:
        return mx.random.normal(shape)

    left, right = normal(1500, 512), normal(512, 2048)
    wide, wide_kernel = normal(1, 2000, 128), normal(128, 11, 128)
    deep, deep_kernel = normal(1, 130, 512), normal(256, 20, 512)
    single, single_kernel = normal(1, 1000, 512), normal(512, 3, 1)
    operations: list[tuple[str, float, Callable[[], Any]]] = [
        ("matrix product", 2 * 1500 * 512 * 2048, lambda: left @ right),
        ("conv1d, long", 2 * 2000 * 11 * 128 * 128, lambda: mx.conv1d(wide, wide_kernel, padding=5)),
        ("conv1d, dilated", 2 * 2000 * 11 * 128 * 128, lambda: mx.conv1d(wide, wide_kernel, padding=25, dilation=5)),
        ("conv_transpose1d", 2 * 130 * 20 * 512 * 256, lambda: mx.conv_transpose1d(deep, deep_kernel, 10, 5)),
        ("the same, depthwise", 2 * 1000 * 3 * 512, lambda: mx.conv_transpose1d(single, single_kernel, 2, groups=512)),
    ]
    mx.eval(left, right, wide, wide_kernel, deep, deep_kernel, single, single_kernel)
    timings = []
    for case, flop, run in operations:
        _, *seconds = [timed(lambda run=run: mx.eval(run())) for _ in range(4)]  # type: ignore[misc]  # binds run
        timings.append(Timing(case, statistics.median(seconds), flop / 1e9, "GFLOP/s"))
    return timings


def time_kokoro(folder: Path) -> Timing:
    import mlx.core as mx
    from mlx_audio.tts.utils import load_model

    model = load_model(folder)
    packs: Any = mx.load(str(folder / "voices" / f"{VOICE}.safetensors"))
    style = packs["voice"].astype(mx.float32)

    def speak(phonemes: str) -> int:
        audio = model(phonemes, style[len(phonemes) - 1], 1.0, return_output=True).audio
        mx.eval(audio)
        return int(audio.size)

    speak(WARM_UP_PHONEMES)
    started = time.perf_counter()
    samples = speak(PHONEMES)
    return Timing("Kokoro", time.perf_counter() - started, samples / model.sample_rate, "RTF")


def time_whisper(folder: Path, accelerated: bool) -> Timing:
    """In float16, as mlx-audio loads it, or as speechd runs it: in float32, which is what a BLAS serves."""
    import mlx.core as mx
    from mlx_audio.stt.utils import load_model

    model = load_model(folder)
    if accelerated:
        cast_whisper_to_float32(model)
    precision = {"fp16": False} if accelerated else {}

    def transcribe(pcm: NDArray[np.float32]) -> str:
        return str(model.generate(mx.array(pcm), language="en", temperature=0.0, **precision).text)

    pcm = speech_clip()
    transcribe(pcm[: WARM_UP_SECONDS * WHISPER_SAMPLE_RATE])
    started = time.perf_counter()
    heard = transcribe(pcm)
    seconds = time.perf_counter() - started
    print(f"heard: {heard}", file=sys.stderr)
    return Timing("Whisper base", seconds, len(pcm) / WHISPER_SAMPLE_RATE, "RTF")


def speech_clip() -> NDArray[np.float32]:
    """CLIP_SECONDS of English, float32 in [-1, 1], 16 kHz."""
    folder = resources.files("pytest_audioeval") / "samples" / "audio" / "en"
    clips = [(folder / f"{name}.wav").read_bytes() for name in ("quick_brown_fox", "counting", "hello_world")]
    pcm = np.concatenate([decode(clip, sample_rate=WHISPER_SAMPLE_RATE) for clip in clips])
    return np.resize(pcm, CLIP_SECONDS * WHISPER_SAMPLE_RATE)  # repeats what is too short


if __name__ == "__main__":
    main()
