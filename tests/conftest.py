"""What the tests share: the converted models, an app over small fake engines, and clips with known words."""

import io
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from audio_converter import decode
from backends.protocols import WHISPER_SAMPLE_RATE
from config import Settings
from model_catalog import ModelCatalog
from model_pool import ModelPool
from server import create_app
from tests.fakes import FakeSpeech, FakeTranscription


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Converted models for this environment. A fresh environment has none, so there the conversions really run."""
    folder = Path(sys.prefix) / "speechd-test-models"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, cache_dir=tmp_path / "cache", data_dir=tmp_path / "data")


@pytest.fixture
def fake_speech() -> FakeSpeech:
    return FakeSpeech()


@pytest.fixture
def fake_transcription() -> FakeTranscription:
    return FakeTranscription()


@pytest.fixture
def client(settings: Settings, fake_speech: FakeSpeech, fake_transcription: FakeTranscription) -> Iterator[TestClient]:
    """The real app over fake engines, started and ready."""
    pool = ModelPool(settings, ModelCatalog(settings), lambda *_: fake_speech, lambda *_: fake_transcription)
    with TestClient(create_app(settings, pool), raise_server_exceptions=False) as client:
        # Asking for the voices waits for the model that speaks; the other one is as quick.
        assert client.get("/v1/audio/voices").status_code == 200
        while client.get("/ready").status_code != 200:
            time.sleep(0.01)
        fake_speech.calls.clear()
        fake_transcription.calls.clear()
        yield client


@pytest.fixture(scope="session")
def spoken_clip() -> bytes:
    """A WAV file in which somebody speaks: "The quick brown fox jumps over the lazy dog." """
    return clip("quick_brown_fox")


def clip(name: str) -> bytes:
    """A clip of pytest-audioeval, as a WAV file."""
    return (resources.files("pytest_audioeval") / "samples" / "audio" / "en" / f"{name}.wav").read_bytes()


def clip_text(name: str) -> str:
    """What is said in the clip."""
    path = resources.files("pytest_audioeval") / "samples" / "audio" / "en" / f"{name}.txt"
    return path.read_text(encoding="utf-8").strip()


def clip_pcm(name: str) -> NDArray[np.float32]:
    """The clip's samples, float32 in [-1, 1], 16 kHz."""
    return decode(clip(name), sample_rate=WHISPER_SAMPLE_RATE)


def decoded_seconds(data: bytes) -> float:
    """How long an encoded file plays, by a decoder that is not speechd's."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate
