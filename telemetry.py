"""Switches off what libraries send home or note down for that. Nothing leaves the machine, that not either.

To be called before anything imports these libraries; this is the one place besides config.py that touches the
environment, because it is the only way they can be told.
"""

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime writes a device id at its import, and has an uploader built in
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub adds what runs here to each request's user agent
}


def switch_off() -> None:
    """Idempotent."""
    os.environ.update(SWITCHES)
