"""From the weights that packages carry to the checkpoints that engines load. What the conversions share is here.

Each pair of formats has a module, in numpy alone. Nothing in this folder runs a model.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Report = Callable[[float], None]
"""Takes the part of the work that is done, 0 to 1."""

SAFETENSORS_DTYPES = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}
SAFETENSORS_ALIGNMENT_BYTES = 8


def write_json(path: Path, content: Any) -> None:
    """Write `content` as UTF-8 JSON. Raises OSError."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], report: Report) -> None:
    """Write float16 and float32 arrays of any shape as one safetensors file that MLX reads.

    safetensors' own `save_file` turns a full disk into an error without errno; this one raises OSError, and reports
    after each tensor. Format: https://huggingface.co/docs/safetensors/index#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    total_bytes = 0
    for name, tensor in tensors.items():
        offsets = [total_bytes, total_bytes + tensor.nbytes]
        header[name] = {"dtype": SAFETENSORS_DTYPES[tensor.dtype], "shape": tensor.shape, "data_offsets": offsets}
        total_bytes += tensor.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % SAFETENSORS_ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, tensor in tensors.items():
            file.write(np.ascontiguousarray(tensor).data)
            report(header[name]["data_offsets"][1] / total_bytes)
