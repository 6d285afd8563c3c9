"""Which model answers: finds it by name, loads it, warms it, and says how it is.

Each engine family has one thread; every MLX model shares the one that owns MLX.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from backends.protocols import SpeechBackend, TranscriptionBackend
from config import Settings
from errors import ModelNotReady, SpeechdError
from inference_thread import InferenceThread
from model_catalog import ModelCatalog, ModelSpec
from openai_api import ModelHealth, QueueHealth, Readiness
from stt_engine import SttEngine
from tts_engine import TtsEngine

LOAD_WAIT_SECONDS = 30.0  # how long a request waits for its model before it is told to come again
RETRY_AFTER_SECONDS = 5

SpeechLoader = Callable[[ModelSpec, Settings], SpeechBackend]
TranscriptionLoader = Callable[[ModelSpec, Settings], TranscriptionBackend]

log = logging.getLogger("speechd.models")


@dataclass
class _Entry:
    """One model that was asked for: on its way, there, or failed."""

    spec: ModelSpec
    loading: asyncio.Task[None] | None = None
    engine: TtsEngine | SttEngine | None = None
    error: str | None = None


class ModelPool:
    """Loaded models by id. The loaders run on the threads; they are given so that tests can bring their own."""

    def __init__(
        self,
        settings: Settings,
        catalog: ModelCatalog,
        load_speech: SpeechLoader,
        load_transcription: TranscriptionLoader,
    ) -> None:
        self.catalog = catalog
        self._settings = settings
        self._load_speech = load_speech
        self._load_transcription = load_transcription
        self._threads: dict[str, InferenceThread] = {}
        self._entries = {spec.id: _Entry(spec) for spec in catalog.defaults.values()}
        self._announcing: asyncio.Task[None] | None = None

    def start_loading_defaults(self) -> None:
        """Begin to load the defaults; must be called on the running event loop."""
        for entry in self._entries.values():
            self._start_loading(entry)
        self._announcing = asyncio.create_task(self._announce_readiness())

    async def speech(self, name: str) -> TtsEngine:
        """The engine of a model that speaks.

        Raises ModelNotFound, InvalidRequest (it does not speak), ModelNotReady (it loads, or failed to).
        """
        engine = await self._engine(self.catalog.find(name, "speech"))
        assert isinstance(engine, TtsEngine)  # noqa: S101  # find() gave a model that speaks
        return engine

    async def transcription(self, name: str) -> SttEngine:
        """The engine of a model that transcribes. Raises as `speech` does."""
        engine = await self._engine(self.catalog.find(name, "transcription"))
        assert isinstance(engine, SttEngine)  # noqa: S101  # find() gave a model that transcribes
        return engine

    def loaded_speech(self) -> list[tuple[str, TtsEngine]]:
        """(id, engine) of the models that speak and are loaded, the default first."""
        loaded = [(entry.spec.id, entry.engine) for entry in self._entries.values()]
        return [(name, engine) for name, engine in loaded if isinstance(engine, TtsEngine)]

    def readiness(self) -> Readiness:
        """Ready when both defaults are loaded and warm."""
        for spec in self.catalog.defaults.values():
            entry = self._entries[spec.id]
            if entry.error is not None:
                return Readiness(ready=False, detail=f"{spec.id} failed to load: {entry.error}")
            if entry.engine is None:
                return Readiness(ready=False, detail=f"{spec.id} is loading")
        return Readiness(ready=True, detail="ready")

    def health(self) -> list[ModelHealth]:
        return [self._health_of(entry) for entry in self._entries.values()]

    def queue(self) -> QueueHealth:
        threads = self._threads.values()
        return QueueHealth(active=sum(t.active for t in threads), waiting=sum(t.waiting for t in threads))

    async def close(self) -> None:
        """Cancel what loads, and end the threads."""
        for task in (self._announcing, *(entry.loading for entry in self._entries.values())):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(asyncio.to_thread(thread.close) for thread in self._threads.values()))

    async def _announce_readiness(self) -> None:
        """One line for the person at the terminal, when the defaults are loaded or have failed to."""
        await asyncio.wait([entry.loading for entry in self._entries.values() if entry.loading is not None])
        readiness = self.readiness()
        log.log(logging.INFO if readiness.ready else logging.ERROR, "speechd: %s", readiness.detail)

    async def _engine(self, spec: ModelSpec) -> TtsEngine | SttEngine:
        entry = self._entries.setdefault(spec.id, _Entry(spec))
        if entry.engine is None:
            await self._wait_until_loaded(entry)
        if entry.engine is None:
            message = f"The model {spec.id!r} failed to load; the server's log says why."
            raise ModelNotReady(message, param="model")
        return entry.engine

    async def _wait_until_loaded(self, entry: _Entry) -> None:
        if entry.loading is None or entry.loading.done():
            self._start_loading(entry)
        assert entry.loading is not None  # noqa: S101  # _start_loading has just set it
        done, _ = await asyncio.wait([entry.loading], timeout=LOAD_WAIT_SECONDS)
        if not done:
            message = f"The model {entry.spec.id!r} is still loading; try again in a moment."
            raise ModelNotReady(message, param="model", headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    def _start_loading(self, entry: _Entry) -> None:
        entry.error = None
        entry.loading = asyncio.create_task(self._load(entry), name=f"load {entry.spec.id}")

    async def _load(self, entry: _Entry) -> None:
        """Load and warm one model; a failure is kept in the entry and in the log."""
        spec, begun = entry.spec, time.perf_counter()
        log.info("loading %s with %s", spec.id, spec.backend)
        try:
            entry.engine = await self._load_engine(spec)
        except SpeechdError as error:
            entry.error = error.message
            log.error("%s failed to load: %s", spec.id, error.message)
            return
        device = entry.engine.backend.device
        log.info("%s is ready on %s after %.1f s", spec.id, device, time.perf_counter() - begun)

    async def _load_engine(self, spec: ModelSpec) -> TtsEngine | SttEngine:
        thread = self._thread(spec.backend)
        if spec.kind == "speech":
            backend = await thread.call(lambda: self._load_speech(spec, self._settings))
            engine = TtsEngine(backend, thread)
            await engine.warm_up(engine.default_voice(self._settings.default_voice))
            return engine
        ears = SttEngine(await thread.call(lambda: self._load_transcription(spec, self._settings)), thread)
        await ears.warm_up()
        return ears

    def _thread(self, backend: str) -> InferenceThread:
        if backend not in self._threads:
            self._threads[backend] = InferenceThread(backend)
        return self._threads[backend]

    def _health_of(self, entry: _Entry) -> ModelHealth:
        engine, spec = entry.engine, entry.spec
        return ModelHealth(
            id=spec.id,
            kind=spec.kind,
            backend=spec.backend,
            device=engine.backend.device if engine else self._settings.device,
            loaded=engine is not None,
            sample_rate=engine.sample_rate if isinstance(engine, TtsEngine) else None,
            memory_bytes=engine.backend.memory_bytes() if engine else None,
            error=entry.error,
        )
