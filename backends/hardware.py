"""What MLX can run on here, found out without importing MLX: on a CPU, its BLAS has to be in place before."""

import ctypes
import importlib.metadata
import platform
import sys
from typing import Literal

Device = Literal["cpu", "metal", "cuda"]

CUDA_ENGINES = ("mlx-cuda-13", "mlx-cuda-12")  # distributions that bring MLX's CUDA engine


def mlx_device() -> Device:
    """The best device that the installed MLX has."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "metal"
    return "cuda" if _has_cuda_engine() and _has_nvidia_driver() else "cpu"


def _has_cuda_engine() -> bool:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return any(name in installed for name in CUDA_ENGINES)


def _has_nvidia_driver() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return False
