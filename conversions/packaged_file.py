"""Files that installed packages carry as data, in one piece or in parts; found, joined and checked.

The packages' code is never run: some of it has effects.
"""

import hashlib
import importlib.util
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from conversions import Report
from errors import EmbeddedModelError

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class PackagedFile:
    """A file that one package carries, or several in parts, with the sha256 of the whole."""

    sha256: str
    parts: Mapping[str, str]
    """Each part's path, which begins with the name of its package, and the part's own sha256."""


def single_file(path: str, sha256: str) -> PackagedFile:
    """A file that is not in parts."""
    return PackagedFile(sha256, {path: sha256})


def no_report(fraction: float) -> None:
    """For files that are small."""


def join(file: PackagedFile, sink: BinaryIO, report: Report = no_report) -> None:
    """Write the parts to `sink` and check them. What `sink` got is not to be used after an error.

    Raises EmbeddedModelError, which names the package that is missing or damaged, and OSError of `sink`.
    """
    whole = hashlib.sha256()
    for number, (path, sha256) in enumerate(file.parts.items(), 1):
        part = hashlib.sha256()
        for chunk in read_packaged(path):
            part.update(chunk)
            whole.update(chunk)
            sink.write(chunk)
        if part.hexdigest() != sha256:
            raise damaged(path)
        report(number / len(file.parts))
    if whole.hexdigest() != file.sha256:
        raise damaged(*file.parts)


def joined_bytes(file: PackagedFile, report: Report = no_report) -> memoryview:
    """The joined parts in memory. Raises EmbeddedModelError."""
    sink = io.BytesIO()
    join(file, sink, report)
    return sink.getbuffer()


def joined_json(file: PackagedFile) -> Any:
    """The content of a small JSON file. Raises EmbeddedModelError."""
    return json.loads(bytes(joined_bytes(file)))


def join_into(target: Path, file: PackagedFile, report: Report = no_report) -> None:
    """Write the joined parts to the file `target`. Raises EmbeddedModelError and OSError."""
    with target.open("wb") as sink:
        join(file, sink, report)


def read_packaged(path: str) -> Iterator[bytes]:
    """The content of a package's file in pieces. Raises EmbeddedModelError."""
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise EmbeddedModelError(f"The package {name}, which holds a model's weights, is missing. Run `make serve`.")
    try:
        with Path(next(iter(spec.submodule_search_locations)), inside).open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
    except OSError as e:
        raise damaged(path) from e


def damaged(*paths: str) -> EmbeddedModelError:
    """The error for parts that are not what they were when this version was made."""
    packages = " ".join(dict.fromkeys(path.partition("/")[0].replace("_", "-") for path in paths))
    return EmbeddedModelError(
        f"The weights in the package {packages} are damaged. Run `uv pip uninstall {packages}`, then `make serve`."
    )
