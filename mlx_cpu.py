"""What MLX needs to be fast on a Linux CPU: a real BLAS under its matrix products, and convolutions made of those.

MLX's CPU wheel for Linux links the netlib reference BLAS, dozens of times slower than OpenBLAS. SciPy, which mlx-audio
needs anyway, brings OpenBLAS with `scipy_` before every function's name. A copy of it with plain `cblas_` names, loaded
for the whole process before MLX, takes over. MLX also runs dilated and transposed convolutions in a scalar loop; they
are replaced by products of matrices in `mlx.core` itself, so that every model gains.

Not covered: elementwise functions (MLX computes them on one thread, mostly unvectorised), matrix products in float16
and bfloat16 (they never reach a BLAS), and anything on macOS or a GPU, which is left as it is.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mlx_convolutions
from backends import hardware

TOLERANCE = 1e-4
"""Largest difference from NumPy, on standard normal input."""

RECIPE = b"speechd 1"
"""Part of a copied library's name. To be changed when the same source should give another copy."""

DIGEST_BYTES = hashlib.sha256().digest_size  # 32

log = logging.getLogger("speechd.mlx_cpu")


@dataclass(frozen=True)
class CpuAcceleration:
    """What `accelerate` did."""

    blas: str | None
    """What serves cblas_sgemm now, for people ("OpenBLAS 0.3.30 from SciPy"); None where it is MLX's own."""
    convolutions: bool
    """Whether dilated, long and transposed one-dimensional convolutions are products of matrices now."""
    reason: str
    """One line for the log: what was done, or why nothing was."""


@dataclass(frozen=True)
class Machine:
    """What decides whether there is anything to do; found without importing MLX."""

    system: str
    """As `platform.system` says it: "Linux", "Darwin"."""
    libc: str
    """As `platform.libc_ver` says it: "glibc", or something else."""
    device: hardware.Device

    @classmethod
    def here(cls) -> "Machine":
        return cls(platform.system(), platform.libc_ver()[0], hardware.mlx_device())


class BlasUnavailable(RuntimeError):
    """Why MLX keeps its own BLAS. Never leaves this module: its message becomes part of the reason."""


_lock = threading.Lock()
_done: list[CpuAcceleration] = []  # empty until the first call


def accelerate(cache_dir: Path, *, machine: Machine | None = None) -> CpuAcceleration:
    """Make MLX fast on this machine's CPU, or say why not. Whatever fails is logged, and MLX goes on with its own code.

    Call it on the thread that will own MLX, before anything imports mlx. The second call returns the first's result.
    Raises ImportError where MLX has no engine installed.
    `cache_dir` gets a library of 25 MB at the first use. `machine` stands in for this one in tests.
    """
    with _lock:
        if not _done:
            _done.append(_accelerate(cache_dir, machine or Machine.here()))
        return _done[0]


def _accelerate(cache_dir: Path, machine: Machine) -> CpuAcceleration:
    if machine.system != "Linux" or machine.device != "cpu":
        done = CpuAcceleration(None, False, f"MLX stays as it is on {machine.system} with the device {machine.device}")
        log.info(done.reason)
        return done
    blas, products = _replace_blas(cache_dir, machine)
    replaced, convolutions = mlx_convolutions.replace()
    done = CpuAcceleration(blas, replaced, f"MLX on the CPU: {products}; {convolutions}")
    log.log(logging.INFO if blas and replaced else logging.WARNING, done.reason)
    return done


# --- Matrix products -------------------------------------------------------------------------------------------------


def _replace_blas(cache_dir: Path, machine: Machine) -> tuple[str | None, str]:
    """What serves cblas_sgemm from now on (None: MLX's own), and the sentence about it."""
    try:
        library = _load_openblas(cache_dir, machine)
        name = f"OpenBLAS {_version(library)} from SciPy"
        if not _mlx_products_agree():
            # It can't be unloaded any more. What it computed when asked directly was right, so this is MLX's affair.
            log.warning("MLX's matrix products by %s differ from NumPy's on this machine: please report it.", name)
    except BlasUnavailable as e:
        return None, f"slow matrix products by MLX's own BLAS ({e})"
    return name, f"matrix products by {name}"


def _load_openblas(cache_dir: Path, machine: Machine) -> ctypes.CDLL:
    """Give the whole process SciPy's OpenBLAS under the plain names, once it is known to compute correctly."""
    if machine.libc != "glibc":
        raise BlasUnavailable("the C library is not glibc")
    if "mlx.core" in sys.modules:
        raise BlasUnavailable("MLX was imported before")
    if hasattr(ctypes.CDLL(None), "cblas_sgemm"):
        raise BlasUnavailable("another library in this process already provides cblas_sgemm")
    path = openblas_copy(scipy_openblas(), cache_dir)
    try:
        library = ctypes.CDLL(str(path))
        library.speechd_scipy_openblas_set_num_threads(len(os.sched_getaffinity(0)))
        agrees = products_agree(library)
    except (OSError, AttributeError) as e:
        raise BlasUnavailable(f"{path.name} can't be loaded: {e}") from e
    if not agrees:
        raise BlasUnavailable(f"the products of {path.name} differ from NumPy's")
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def scipy_openblas() -> Path:
    """The OpenBLAS with 32-bit integers that SciPy's wheel brings; a system's SciPy has none of its own."""
    scipy = importlib.util.find_spec("scipy")
    if scipy is None or scipy.origin is None:
        raise BlasUnavailable("SciPy is not installed")
    found = sorted((Path(scipy.origin).parent.parent / "scipy.libs").glob("libscipy_openblas-*.so"))
    if not found:
        raise BlasUnavailable("this SciPy brings no OpenBLAS")
    return found[0]


def openblas_copy(source: Path, cache_dir: Path) -> Path:
    """The copy of `source` with plain cblas_ names in the cache; written where it is missing, damaged or of another.

    Its last 32 bytes are the SHA-256 of what stands before them: the dynamic linker does not look there.
    Raises BlasUnavailable where the cache can't be written or the source can't be rewritten.
    """
    try:
        # The folder belongs to the name because the copy finds the libraries that it needs through it.
        version = hashlib.sha256(RECIPE + bytes(source.parent) + source.read_bytes()).hexdigest()[:16]
        copy = cache_dir / "blas" / f"libspeechd_openblas-{version}.so"
        if not _is_whole(copy):
            _write_whole(copy, _with_plain_names(source, copy.name))
    except OSError as e:
        raise BlasUnavailable(f"no copy of OpenBLAS in the cache: {e}") from e
    return copy


def _is_whole(copy: Path) -> bool:
    if not copy.exists():
        return False
    content = copy.read_bytes()
    return hashlib.sha256(content[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]


def _write_whole(copy: Path, content: bytes) -> None:
    """Write beside and rename: other processes may be reading the copy, or writing it too."""
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".writing-") as folder:
        draft = Path(folder) / copy.name
        draft.write_bytes(content + hashlib.sha256(content).digest())
        draft.replace(copy)


def _with_plain_names(source: Path, soname: str) -> bytes:
    """The library with `cblas_sgemm` for `scipy_cblas_sgemm`, and a prefix of ours on every other symbol.

    OpenBLAS exports its internals too (11,000 symbols). Loaded for the whole process under their own names, they would
    take the place of those in NumPy's OpenBLAS, which is another build. For the same reason the soname changes:
    SciPy, imported later, would be given this copy instead of its own library.
    """
    try:
        import lief
    except ImportError as e:
        raise BlasUnavailable("LIEF is not installed") from e
    library = lief.ELF.parse(str(source))
    if library is None:
        raise BlasUnavailable(f"LIEF can't read {source.name}")
    for symbol in library.exported_symbols:
        name = str(symbol.name)
        plain = name.removeprefix("scipy_")
        symbol.name = plain if plain.startswith("cblas_") else f"speechd_{name}"
    tags = lief.ELF.DynamicEntry.TAG
    for tag in (tags.SONAME, tags.RPATH, tags.RUNPATH):
        if library.has(tag):
            library.remove(tag)
    library.add(lief.ELF.DynamicSharedObject(soname))
    library.add(lief.ELF.DynamicEntryRunPath(str(source.parent)))  # libgfortran lies there
    return bytes(library.write_to_bytes())


def _version(openblas: ctypes.CDLL) -> str:
    """The second word of "OpenBLAS 0.3.30 DYNAMIC_ARCH …"."""
    describe = openblas.speechd_scipy_openblas_get_config
    describe.restype = ctypes.c_char_p
    return str(describe().decode().split()[1])


def products_agree(openblas: ctypes.CDLL) -> bool:
    """Whether a library's own cblas_sgemm computes what NumPy does, called past MLX."""
    random = np.random.default_rng(0)
    for rows, inner, columns in ((7, 5, 9), (64, 96, 80)):
        a = random.standard_normal((rows, inner), np.float32)
        b = random.standard_normal((inner, columns), np.float32)
        if not np.allclose(_sgemm(openblas, a, b), a @ b, atol=TOLERANCE):
            return False
    return True


def _sgemm(openblas: ctypes.CDLL, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """a @ b for float32 arrays of shape (m, k) and (k, n), the second given transposed."""
    (m, k), n = a.shape, b.shape[1]
    b_transposed = np.ascontiguousarray(b.T)
    c = np.zeros((m, n), np.float32)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    row_major, as_is, transposed = 101, 111, 112  # CBLAS_ORDER, CBLAS_TRANSPOSE
    at_a, at_b, at_c = (ctypes.c_void_p(x.ctypes.data) for x in (a, b_transposed, c))
    openblas.cblas_sgemm(row_major, as_is, transposed, m, n, k, one, at_a, k, at_b, k, zero, at_c, n)
    return c


def _mlx_products_agree() -> bool:
    """Whether MLX's products are NumPy's: plain, transposed, batched, in each type that goes to the BLAS."""
    import mlx.core as mx

    random = np.random.default_rng(0)
    for dtype in (mx.float32, mx.float64, mx.complex64):
        for a_shape, b_shape in (((33, 20), (20, 47)), ((3, 16, 24), (3, 24, 8)), ((4, 1, 64), (64, 10))):
            a, b = random.standard_normal(a_shape), random.standard_normal(b_shape)
            ours, transposed = (mx.array(x, dtype=dtype) for x in (a, b.swapaxes(-1, -2)))
            product = np.array(mx.matmul(ours, transposed.swapaxes(-1, -2), stream=mx.cpu))
            if not np.allclose(product, a @ b, atol=TOLERANCE):
                return False
    return True
