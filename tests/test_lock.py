"""The lock file installs without a compiler: on each platform, every package that isn't pure Python has a wheel."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

LOCK = tomllib.loads((Path(__file__).parent.parent / "uv.lock").read_text(encoding="utf-8"))

PLATFORMS = ("macos-arm64", "linux-x86_64", "linux-aarch64")
PYTHON_MINORS = (11, 12, 13, 14)
OLDEST_MACOS = (14, 0)  # what MLX's wheels ask for
NEWEST_GLIBC_MINOR = 36  # Debian 12; a wheel that asks for a newer glibc would not install there

# Only their source is published; a test below sees that it is pure Python.
PURE_SOURCE_PACKAGES = {"docopt", "jieba"}

# How uv writes, in markers of the lock, that the group `cpu` is chosen.
CPU_GROUP = "group-7-speechd-cpu"


def platform_tags(platform: str) -> list[str]:
    if platform == "macos-arm64":
        return list(mac_platforms(OLDEST_MACOS, "arm64"))
    machine = platform.partition("-")[2]
    numbered = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC_MINOR, 4, -1)]
    legacy = ["manylinux2014", "manylinux2010", "manylinux1"] if machine == "x86_64" else ["manylinux2014"]
    return [*numbered, *(f"{name}_{machine}" for name in legacy), f"linux_{machine}"]


def supported_tags(platform: str, minor: int) -> set[Tag]:
    platforms = platform_tags(platform)
    own = cpython_tags((3, minor), platforms=platforms)
    generic = compatible_tags((3, minor), interpreter=f"cp3{minor}", platforms=platforms)
    return {*own, *generic}


def environment(platform: str, minor: int) -> dict[str, str]:
    mac = platform.startswith("macos")
    return {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.4",
        "implementation_version": f"3.{minor}.4",
        "os_name": "posix",
        "sys_platform": "darwin" if mac else "linux",
        "platform_system": "Darwin" if mac else "Linux",
        "platform_machine": platform.partition("-")[2],
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "platform_release": "",
        "platform_version": "",
        "extra": CPU_GROUP,
    }


def holds(item: dict[str, Any], env: dict[str, str]) -> bool:
    return "marker" not in item or Marker(item["marker"]).evaluate(env)


def locked_packages(env: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every package that `make test` installs in this environment."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for package in LOCK["package"]:
        by_name.setdefault(package["name"], []).append(package)
    seen: set[tuple[str, str]] = set()
    to_visit = [("speechd", "")]
    while to_visit:
        name, extra = to_visit.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for package in by_name[name]:
            markers = package.get("resolution-markers")
            if markers and not any(Marker(marker).evaluate(env) for marker in markers):
                continue
            needs = list(package.get("dependencies", []))
            needs += package.get("optional-dependencies", {}).get(extra, [])
            needs += [need for group in package.get("dev-dependencies", {}).values() for need in group]
            for need in needs:
                if holds(need, env):
                    to_visit += [(need["name"], each) for each in ("", *need.get("extra", []))]
            if name != "speechd":
                yield package


def has_wheel(package: dict[str, Any], tags: set[Tag]) -> bool:
    names = [wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", [])]
    return any(parse_wheel_filename(name)[3] & tags for name in names)


@pytest.mark.parametrize("minor", PYTHON_MINORS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_package_has_a_wheel_or_is_pure_python(platform: str, minor: int) -> None:
    tags = supported_tags(platform, minor)
    packages = list(locked_packages(environment(platform, minor)))
    without = {package["name"] for package in packages if not has_wheel(package, tags)}
    assert without == PURE_SOURCE_PACKAGES
    names = {package["name"] for package in packages}
    assert ("mlx-metal" in names) == (platform == "macos-arm64")
    assert ("mlx-cpu" in names) == (platform != "macos-arm64")
    assert not names & {"torch", "mlx-cuda-12", "mlx-cuda-13"}


def test_every_file_of_the_lock_has_a_hash() -> None:
    files = [
        file
        for package in LOCK["package"]
        for file in (*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else []))
    ]
    assert len(files) > 500
    assert all(file["hash"].startswith("sha256:") for file in files)


@pytest.mark.parametrize("name", sorted(PURE_SOURCE_PACKAGES))
def test_source_packages_are_pure_python(name: str) -> None:
    assert "Root-Is-Purelib: true" in (distribution(name).read_text("WHEEL") or "")
