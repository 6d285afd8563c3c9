"""The `speechd` command."""

import logging
import signal
import socket
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

import telemetry
from config import Settings, load_settings
from errors import ConfigError, StartupError
from middleware import WithRequestId

if TYPE_CHECKING:
    from model_catalog import ModelCatalog

EXIT_STARTUP_ERROR = 2
LISTEN_BACKLOG = 2048
DRAIN_SECONDS = 15  # what running requests are given at the end; launchd kills after 20

# Libraries that tell of each step they take, at a level above debug.
CHATTY_LOGGERS = (
    "faster_whisper",
    "httpx",
    "httpcore",
    "huggingface_hub",
    "jieba",
    "kokoro_onnx",
    "phonemizer",
    "numba",
)

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="speechd: an OpenAI-compatible speech server for your own machine.",
)

log = logging.getLogger("speechd")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"speechd {version('speechd')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve() -> None:
    """Run the server. Settings come from SPEECHD_* variables and from .env in this folder (see .env.example)."""
    _set_up_logging("info")
    try:
        settings = load_settings()
        logging.getLogger().setLevel(settings.log_level.upper())
        listening = _listen(settings)
        _serve(settings, listening)
    except StartupError as error:
        _give_up(error)


def main() -> None:
    """Entry point of the console script."""
    telemetry.switch_off()
    app()


def _serve(settings: Settings, listening: socket.socket) -> None:
    """Make the weights ready, then serve until a signal ends it."""
    # Imported late: `speechd --help` needs none of it.
    import uvicorn

    from server import create_app

    web_app = create_app(settings)
    _prepare_checkpoints(settings, web_app.state.speechd.pool.catalog)
    config = uvicorn.Config(
        web_app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    # uvicorn raises the signal that ended it once more, for whoever listened before. An asked-for end is exit code 0.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: None)
    log.info("speechd %s listens on %s", version("speechd"), _url(listening))
    uvicorn.Server(config).run(sockets=[listening])


def _prepare_checkpoints(settings: Settings, catalog: "ModelCatalog") -> None:
    """Convert the embedded weights of the defaults, with a progress bar, before anyone waits for them."""
    from embedded_models import terminal_progress
    from model_loading import checkpoint

    with terminal_progress() as progress:
        for spec in catalog.defaults.values():
            if spec.embedded is not None:
                checkpoint(spec, settings, progress)


def _listen(settings: Settings) -> socket.socket:
    """Take the port first: nobody should wait for a conversion to learn that it is in use."""
    key = f"SPEECHD_HOST={settings.host!r}, SPEECHD_PORT={settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # From here on a second server is refused; connections wait until the server takes them.
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        raise ConfigError(f"{key}: can't listen there: {error.strerror}. Is another server running?") from error
    listening.set_inheritable(True)
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _set_up_logging(level: str) -> None:
    terminal = Console(stderr=True)
    handler: logging.Handler
    if terminal.is_terminal:
        handler = RichHandler(console=terminal, show_path=False, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s%(request)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s"))
    handler.addFilter(WithRequestId())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _give_up(error: StartupError) -> NoReturn:
    print(f"speechd: {error.message}", file=sys.stderr)
    raise SystemExit(EXIT_STARTUP_ERROR)
