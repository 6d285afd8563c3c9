"""MLX on a CPU: the BLAS is the copy of SciPy's, the fast convolutions equal MLX's own, and nothing else changes."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlx_convolutions
import mlx_cpu
from mlx_cpu import Machine

REPOSITORY = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    Machine.here().system != "Linux" or Machine.here().libc != "glibc" or Machine.here().device != "cpu",
    reason="MLX is left as it is here: this is no Linux with glibc on a CPU",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlx_cpu")


@pytest.fixture(scope="module")
def mx(cache: Path) -> Any:
    """MLX in this process, with its BLAS replaced first: other tests here are slow without."""
    mlx_cpu.accelerate(cache)
    import mlx.core

    return mlx.core


def in_fresh_process(code: str, *arguments: object) -> Any:
    """What the code leaves in `result`; `cache` is the first argument, as a path."""
    program = f"""
import json, sys
from pathlib import Path
import mlx_cpu
cache = Path(sys.argv[1])
{code}
print(json.dumps(result))
"""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ACCELERATE = """
done = mlx_cpu.accelerate(cache)
result = {"blas": done.blas, "convolutions": done.convolutions, "reason": done.reason}
"""


# --- The BLAS --------------------------------------------------------------------------------------------------------


def test_serves_cblas_from_the_copy_in_the_cache_and_leaves_numpy_and_scipy_their_own(cache: Path) -> None:
    seen = in_fresh_process(
        ACCELERATE
        + """
import ctypes, os
class Place(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("a", ctypes.c_void_p), ("b", ctypes.c_char_p), ("c", ctypes.c_void_p)]
process, place = ctypes.CDLL(None), Place()
process.dladdr(process.cblas_sgemm, ctypes.byref(place))
import scipy.linalg
scipy.linalg.lu([[1.0, 2.0], [3.0, 4.0]])
maps = Path("/proc/self/maps").read_text()
result |= {
    "sgemm_in": place.file.decode(),
    "leaked": [name for name in ("gotoblas", "blas_memory_alloc", "scipy_cblas_sgemm") if hasattr(process, name)],
    "libraries": sorted({line.split("/")[-1] for line in maps.splitlines() if "openblas" in line}),
    "threads": ctypes.CDLL(place.file.decode()).speechd_scipy_openblas_get_num_threads(),
    "cpus": len(os.sched_getaffinity(0)),
}
""",
        cache,
    )
    assert seen["blas"].startswith("OpenBLAS 0.")
    assert seen["convolutions"]
    assert Path(seen["sgemm_in"]).parent == cache / "blas"
    assert seen["leaked"] == []
    assert mlx_cpu.scipy_openblas().name in seen["libraries"]
    assert seen["threads"] == seen["cpus"]


def test_takes_no_more_threads_than_this_process_may_use(cache: Path) -> None:
    seen = in_fresh_process(
        """
import ctypes, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
mlx_cpu.accelerate(cache)
(copy,) = (cache / "blas").iterdir()
result = ctypes.CDLL(str(copy)).speechd_scipy_openblas_get_num_threads()
""",
        cache,
    )
    assert seen == 1


def test_mlx_that_is_imported_already_keeps_its_blas_but_gets_the_convolutions(cache: Path) -> None:
    done = in_fresh_process("import mlx.core" + ACCELERATE, cache)
    assert done["blas"] is None
    assert done["convolutions"]
    assert "MLX was imported before" in done["reason"]


def test_a_cache_that_cant_be_written_leaves_mlx_its_own_blas(tmp_path: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()
    done = in_fresh_process(ACCELERATE, no_folder)
    assert done["blas"] is None
    assert done["convolutions"]
    assert "no copy of OpenBLAS in the cache" in done["reason"]


def test_the_second_call_returns_the_first_result(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert in_fresh_process(f"result = mlx_cpu.accelerate(cache) is mlx_cpu.accelerate(Path({str(other)!r}))", cache)
    assert not other.exists()


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def change_one_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_off, change_one_byte, lambda content: b""])
def test_a_damaged_copy_is_written_again(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    copy = mlx_cpu.openblas_copy(mlx_cpu.scipy_openblas(), cache)
    whole = copy.read_bytes()
    copy.unlink()  # a process that has it loaded keeps its file
    copy.write_bytes(damage(whole))
    assert mlx_cpu.openblas_copy(mlx_cpu.scipy_openblas(), cache) == copy
    assert copy.read_bytes() == whole


def test_a_whole_copy_is_not_written_again(cache: Path) -> None:
    source = mlx_cpu.scipy_openblas()
    before = mlx_cpu.openblas_copy(source, cache).stat()
    after = mlx_cpu.openblas_copy(source, cache).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_source_that_is_no_library_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "libscipy_openblas-0.so"
    source.write_bytes(b"not ELF")
    with pytest.raises(mlx_cpu.BlasUnavailable, match="can't read"):
        mlx_cpu.openblas_copy(source, tmp_path)


def test_processes_that_start_together_share_one_copy(tmp_path: Path) -> None:
    program = (
        "import ctypes, sys; from pathlib import Path; import mlx_cpu; "
        "ctypes.CDLL(str(mlx_cpu.openblas_copy(mlx_cpu.scipy_openblas(), Path(sys.argv[1])))).cblas_sgemm"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "blas").iterdir())) == 1


def test_a_blas_that_computes_something_else_is_noticed() -> None:
    class Idle:
        def cblas_sgemm(self, *arguments: object) -> None:
            """Leaves the result as it is: zeros."""

    assert not mlx_cpu.products_agree(Idle())  # type: ignore[arg-type]  # stands in for a ctypes library


# --- Where nothing is to be done -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "machine",
    [Machine("Darwin", "", "metal"), Machine("Darwin", "", "cpu"), Machine("Linux", "glibc", "cuda")],
    ids=["apple silicon", "intel mac", "cuda"],
)
def test_macos_and_gpus_are_left_alone(machine: Machine, tmp_path: Path) -> None:
    done = in_fresh_process(
        f"""
done = mlx_cpu.accelerate(cache, machine=mlx_cpu.{machine!r})
result = {{"blas": done.blas, "convolutions": done.convolutions, "imported": "mlx.core" in sys.modules}}
""",
        tmp_path,
    )
    assert done == {"blas": None, "convolutions": False, "imported": False}
    assert list(tmp_path.iterdir()) == []


def test_another_c_library_gets_the_convolutions_only(tmp_path: Path) -> None:
    done = in_fresh_process(
        """
done = mlx_cpu.accelerate(cache, machine=mlx_cpu.Machine("Linux", "", "cpu"))
result = [done.blas, done.convolutions, done.reason]
""",
        tmp_path,
    )
    assert done[:2] == [None, True]
    assert "the C library is not glibc" in done[2]


def test_convolutions_that_differ_from_mlx_are_not_put_in(cache: Path) -> None:
    done = in_fresh_process(
        """
import mlx.core as mx
own = mx.conv_transpose1d
mx.conv_transpose1d = other = lambda *arguments, **options: own(*arguments, **options) + 0.001
done = mlx_cpu.accelerate(cache)
result = [done.convolutions, mx.conv_transpose1d is other, hasattr(mx.conv1d, "__wrapped__"), done.reason]
""",
        cache,
    )
    assert done[:3] == [False, True, False]
    assert "gave other results" in done[3]


# --- The convolutions ------------------------------------------------------------------------------------------------


def own(function: Any) -> Any:
    """MLX's own function, whether or not it has been replaced in this process."""
    return getattr(function, "__wrapped__", function)


def normal(mx: Any, *shape: int) -> Any:
    return mx.array(np.random.default_rng(sum(shape)).standard_normal(shape), dtype=mx.float32)


def assert_same(fast: Any, original: Any) -> None:
    assert fast.dtype == original.dtype
    assert fast.shape == original.shape
    np.testing.assert_allclose(np.array(fast), np.array(original), atol=mlx_cpu.TOLERANCE)


@pytest.mark.parametrize("kernel", [1, 2, 7])
@pytest.mark.parametrize("padding", [0, 4, 30])
@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_conv1d_equals_mlx(mx: Any, kernel: int, padding: int, dilation: int) -> None:
    for batch, stride, channels in itertools.product((1, 3), (1, 2, 5), (1, 3, 20)):  # both sides of LONG_ROWS
        x, weight = normal(mx, batch, 47, 6), normal(mx, channels, kernel, 6)
        arguments = (x, weight, stride, padding, dilation)
        assert_same(mlx_convolutions.fast_conv1d(own(mx.conv1d))(*arguments), own(mx.conv1d)(*arguments))


@pytest.mark.parametrize("kernel", [1, 3, 12, 20])
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("output_padding", [0, 1, 4])
def test_conv_transpose1d_equals_mlx(mx: Any, kernel: int, padding: int, output_padding: int) -> None:
    fast = mlx_convolutions.fast_conv_transpose1d(
        own(mx.conv_transpose1d), mlx_convolutions.fast_conv1d(own(mx.conv1d))
    )
    for batch, dilation, stride, groups in itertools.product((1, 2), (1, 2), (1, 2, 3, 10), (1, 6)):
        x, weight = normal(mx, batch, 31, 6), normal(mx, 6, kernel, 6 // groups)
        arguments = (x, weight, stride, padding, dilation, output_padding, groups)
        assert_same(fast(*arguments), own(mx.conv_transpose1d)(*arguments))


@pytest.mark.parametrize("types", [("float16", "float16"), ("bfloat16", "bfloat16"), ("float16", "float32")])
def test_half_precision_keeps_its_type_and_is_computed_in_float32(mx: Any, types: tuple[str, str]) -> None:
    x_type, weight_type = (getattr(mx, name) for name in types)
    conv1d = mlx_convolutions.fast_conv1d(own(mx.conv1d))
    transpose = mlx_convolutions.fast_conv_transpose1d(own(mx.conv_transpose1d), conv1d)
    x, weight = normal(mx, 1, 60, 6).astype(x_type), normal(mx, 4, 5, 6).astype(weight_type)
    for fast, original in ((conv1d, own(mx.conv1d)), (transpose, own(mx.conv_transpose1d))):
        exact = original(x.astype(mx.float32), weight.astype(mx.float32), 2, 1, 1 if fast is transpose else 3)
        result = fast(x, weight, 2, 1, 1 if fast is transpose else 3)
        assert result.dtype == original(x, weight, 2).dtype
        np.testing.assert_allclose(np.array(result.astype(mx.float32)), np.array(exact), rtol=0.01, atol=0.01)


def test_the_convolutions_can_be_compiled_and_differentiated(mx: Any) -> None:
    conv1d = mlx_convolutions.fast_conv1d(own(mx.conv1d))
    x, weight = normal(mx, 1, 40, 3), normal(mx, 2, 3, 3)
    assert_same(mx.compile(lambda a: conv1d(a, weight, dilation=2))(x), own(mx.conv1d)(x, weight, dilation=2))
    fast = mx.grad(lambda a: conv1d(a, weight, dilation=2).sum())(x)
    assert_same(fast, mx.grad(lambda a: own(mx.conv1d)(a, weight, dilation=2).sum())(x))


class Original:
    """Stands in for MLX's function and keeps what it was called with."""

    __name__ = "original"

    def __init__(self) -> None:
        self.positional: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.positional, self.named = positional, named
        return "MLX's own"


@pytest.mark.parametrize(
    ("numbers", "named", "reaches_mlx"),
    [
        ((), {}, (1, 0, 1, 1)),  # short, not dilated: MLX is fast there
        ((2,), {"groups": 2, "dilation": 3}, (2, 0, 3, 2)),
        ((1, 2, 3, 4), {}, (1, 2, 3, 4)),
        ((), {"dilation": 0}, (1, 0, 0, 1)),  # MLX says what is wrong with these
        ((), {"dilation": 2, "padding": -1}, (1, -1, 2, 1)),
        ((), {"dilation": 2, "stride": (1,)}, ((1,), 0, 2, 1)),
        ((), {"dilation": 200}, (1, 0, 200, 1)),
    ],
)
def test_any_other_conv1d_goes_to_mlx_as_it_is(
    mx: Any, numbers: tuple[Any, ...], named: dict[str, Any], reaches_mlx: tuple[Any, ...]
) -> None:
    original = Original()
    x, weight = normal(mx, 1, 40, 4), normal(mx, 8, 3, 4)
    assert mlx_convolutions.fast_conv1d(original)(x, weight, *numbers, **named) == "MLX's own"
    assert original.positional[2:] == reaches_mlx
    assert original.named == {"stream": None}


def test_calls_with_a_stream_or_of_another_type_or_shape_go_to_mlx(mx: Any) -> None:
    original = Original()
    conv1d = mlx_convolutions.fast_conv1d(original)
    transpose = mlx_convolutions.fast_conv_transpose1d(original, conv1d)
    x, weight = normal(mx, 1, 40, 4), normal(mx, 8, 3, 4)
    assert conv1d(x, weight, dilation=2, stream=mx.cpu) == "MLX's own"
    assert original.named == {"stream": mx.cpu}
    assert transpose(x, weight, 2, stream=mx.cpu) == "MLX's own"
    assert original.positional[2:] == (2, 0, 1, 0, 1)
    for a, b in (
        (x[0], weight),
        (x, weight[:, :, :2]),
        (x[:, :0], weight),
        (x.astype(mx.int32), weight),
        (np.array(x), weight),
    ):
        assert conv1d(a, b, dilation=2) == "MLX's own"
        assert transpose(a, b, 2) == "MLX's own"


def test_the_replaced_functions_are_called_by_mlx_layers(cache: Path) -> None:
    in_place = in_fresh_process(
        """
mlx_cpu.accelerate(cache)
import mlx.core as mx, mlx.nn as nn
layer, x = nn.Conv1d(4, 4, 3, dilation=2), mx.random.normal((1, 20, 4))
own = mx.conv1d.__wrapped__
same = mx.abs(layer(x) - (own(x, layer.weight, dilation=2) + layer.bias)).max().item()
result = [mx.conv1d.__name__, mx.conv_transpose1d.__name__, same < 1e-4]
""",
        cache,
    )
    assert in_place == ["conv1d", "conv_transpose1d", True]
