"""A folder in the cache that is either whole or not there, whatever is killed, full or done twice at once.

It is made beside its place under a lock, closed with a marker, and renamed. What goes into it is decided elsewhere.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conversions import write_json
from errors import EmbeddedModelError

MEGABYTE = 1_000_000
FREE_SPACE_MARGIN = 1.05  # what a file system needs beside the files themselves

MARKER = "speechd.json"

FULL_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)


def free_bytes(folder: Path) -> int:
    """How much the file system of `folder` still takes."""
    return shutil.disk_usage(folder).free


def ensure(
    folder: Path,
    *,
    sources: Mapping[str, str],
    size_bytes: int,
    build: Callable[[Path], None],
    free_bytes: Callable[[Path], int] = free_bytes,
) -> bool:
    """Make sure that `folder` is there and was made of `sources` (name → sha256); tell whether it was made now.

    `build` fills an empty folder with about `size_bytes`. A second process that asks meanwhile waits for the first.
    Raises EmbeddedModelError for a full disk and a cache that can't be written, and what `build` raises.
    """
    if is_ready(folder, sources):
        return False
    needed_bytes = round(size_bytes * FREE_SPACE_MARGIN)
    with file_system_errors(folder, needed_bytes):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(folder.parent)
        with lock(folder):
            if is_ready(folder, sources):
                return False
            make_room(folder, needed_bytes, free_bytes)
            make(folder, sources, build)
    return True


def make_room(folder: Path, needed_bytes: int, free_bytes: Callable[[Path], int]) -> None:
    """Remove what is there of the folder, and raise OSError (ENOSPC) at once if it won't fit."""
    for remains in (building(folder), folder):
        if remains.exists():
            shutil.rmtree(remains)
    if free_bytes(folder.parent) < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make(folder: Path, sources: Mapping[str, str], build: Callable[[Path], None]) -> None:
    """Build the folder beside its place, then rename it. The caller holds the lock."""
    building(folder).mkdir()
    try:
        build(building(folder))
        write_json(building(folder) / MARKER, marker(sources, file_sizes(building(folder))))
        sync_tree(building(folder))
        building(folder).rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(building(folder), ignore_errors=True)  # gone already, unless something failed


def building(folder: Path) -> Path:
    """Where `folder` is made."""
    return folder.with_name(folder.name + ".building")


@contextmanager
def lock(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of `folder`; yields whether it was got. The system frees it when its holder dies."""
    with folder.with_name(folder.name + ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def sweep_leftovers(cache_dir: Path) -> None:
    """Remove what killed processes left half made. One that is alive holds its lock."""
    for leftover in cache_dir.glob("*.building"):
        with lock(leftover.with_suffix(""), wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(leftover, ignore_errors=True)


def is_ready(folder: Path, sources: Mapping[str, str]) -> bool:
    """Whether the folder was made of `sources` and still has each file in its size. Nothing is hashed."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        sizes_bytes = {name: (folder / name).stat().st_size for name in found["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return bool(found == marker(sources, sizes_bytes))


def marker(sources: Mapping[str, str], sizes_bytes: Mapping[str, int]) -> dict[str, Any]:
    """What the marker says: what the folder was made of, and what it holds."""
    return {"sources": dict(sources), "files": dict(sizes_bytes)}


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below `folder`, by its path inside."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def sync_tree(folder: Path) -> None:
    """Wait until everything in the folder is on the disk: a rename may get there before what it names."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Wait until one file, or the names in one folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def file_system_errors(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn OSError into EmbeddedModelError: one line for the person who starts the server."""
    cache_dir, name = folder.parent, folder.name
    try:
        yield
    except OSError as e:
        if e.errno in FULL_DISK_ERRNOS:
            raise EmbeddedModelError(
                f"{name} needs {needed_bytes / MEGABYTE:.0f} MB of free space in {cache_dir}. "
                "Free some, or set SPEECHD_CACHE_DIR to a folder on another disk."
            ) from e
        if e.errno in READ_ONLY_ERRNOS:
            raise EmbeddedModelError(
                f"{name} can't be written to {cache_dir}. Allow it, or set SPEECHD_CACHE_DIR to another folder."
            ) from e
        raise EmbeddedModelError(f"{name} can't be made in {cache_dir}: {e}.") from e
