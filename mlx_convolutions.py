"""One-dimensional convolutions of MLX as products of matrices, for the CPU, where MLX runs them in a scalar loop.

They replace `mlx.core.conv1d` and `conv_transpose1d` with the same signatures and results, so that every model gains.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import mlx.core as mx

TOLERANCE = 1e-4
"""Largest difference from MLX's own convolution, on standard normal input of a few channels."""

LONG_ROWS = 8
"""From this many output frames per output channel on, a product per kernel tap beats one over copied windows."""

Convolution: TypeAlias = "Callable[..., mx.array]"


def replace() -> tuple[bool, str]:
    """Put the fast convolutions into mlx.core if they agree with its own; whether they are there, and the sentence."""
    import mlx.core as mx

    if mx.default_device() != mx.cpu:
        return False, "convolutions by MLX, since its device is no CPU"
    conv1d = fast_conv1d(mx.conv1d)
    conv_transpose1d = fast_conv_transpose1d(mx.conv_transpose1d, conv1d)
    if not all(_agree(*pair) for pair in _convolution_checks(conv1d, conv_transpose1d)):
        return False, "slow convolutions by MLX (the fast ones gave other results here)"
    mx.conv1d, mx.conv_transpose1d = conv1d, conv_transpose1d
    return True, "convolutions as matrix products"


def _agree(fast: "mx.array", original: "mx.array") -> bool:
    return fast.shape == original.shape and np.allclose(np.array(fast), np.array(original), atol=TOLERANCE)


def _convolution_checks(conv1d: Convolution, conv_transpose1d: Convolution) -> Iterator[tuple["mx.array", "mx.array"]]:
    """Results of the fast functions and of MLX's own, for every way that a convolution can take through this module."""
    import mlx.core as mx

    random = np.random.default_rng(0)

    def normal(*shape: int) -> "mx.array":
        return mx.array(random.standard_normal(shape), dtype=mx.float32)

    for frames, kernel, stride, padding, dilation in ((60, 3, 1, 1, 1), (60, 7, 1, 9, 3), (20, 5, 2, 4, 2)):
        for channels in (2, 16):  # long and short, by LONG_ROWS
            x, weight = normal(2, frames, 6), normal(channels, kernel, 6)
            numbers = (stride, padding, dilation)
            yield conv1d(x, weight, *numbers), mx.conv1d(x, weight, *numbers)
    for kernel, stride, padding, extra in ((20, 10, 5, 0), (3, 2, 0, 0), (5, 3, 1, 2), (2, 4, 0, 1)):
        for weight, groups in ((normal(5, kernel, 6), 1), (normal(6, kernel, 1), 6)):
            x, all_numbers = normal(2, 30, 6), (stride, padding, 1, extra, groups)
            yield conv_transpose1d(x, weight, *all_numbers), mx.conv_transpose1d(x, weight, *all_numbers)


def fast_conv1d(original: Convolution) -> Convolution:
    """mx.conv1d with the same signature and results, fast where it is dilated or its output is long."""

    @functools.wraps(original)
    def conv1d(  # noqa: PLR0917 — MLX's signature
        input: "mx.array",
        weight: "mx.array",
        /,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        *,
        stream: Any = None,
    ) -> "mx.array":
        as_before = functools.partial(original, input, weight, stride, padding, dilation, groups, stream=stream)
        if stream is not None or groups != 1 or not _is_ordinary(input, weight, stride, padding, dilation):
            return as_before()
        channels, kernel, _ = weight.shape
        frames = (input.shape[1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        is_long = stride == 1 and kernel > 1 and frames >= LONG_ROWS * channels
        if frames < 1 or weight.shape[2] != input.shape[2] or not (is_long or dilation > 1):
            return as_before()
        x, w = _padded(_float32(input), padding), _float32(weight)
        y = _product_per_tap(x, w, frames, dilation) if is_long else _product_of_windows(x, w, frames, stride, dilation)
        return y.astype(_result_type(input, weight))

    return conv1d


def fast_conv_transpose1d(original: Convolution, conv1d: Convolution) -> Convolution:
    """mx.conv_transpose1d with the same signature and results, fast where it has a stride; made of `conv1d`."""

    @functools.wraps(original)
    def conv_transpose1d(  # noqa: PLR0917 — MLX's signature
        input: "mx.array",
        weight: "mx.array",
        /,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        output_padding: int = 0,
        groups: int = 1,
        *,
        stream: Any = None,
    ) -> "mx.array":
        as_before = functools.partial(
            original, input, weight, stride, padding, dilation, output_padding, groups, stream=stream
        )
        if stream is not None or dilation != 1 or not _is_ordinary(input, weight, stride, padding, output_padding + 1):
            return as_before()
        (_, length, inner), (channels, kernel, inner_per_group) = input.shape, weight.shape
        frames = (length - 1) * stride - 2 * padding + kernel + output_padding
        is_dense = groups == 1 and inner_per_group == inner
        is_depthwise = groups == inner == channels and inner_per_group == 1
        # At stride 1 MLX's own is fast, and a padding that reaches beyond the kernel it takes in a way of its own.
        if frames < 1 or stride == 1 or padding >= kernel or not (is_dense or is_depthwise):
            return as_before()
        x, w = _float32(input), _float32(weight)
        y = _transposed(conv1d, x, w, stride) if is_dense else _transposed_depthwise(x, w, stride)
        missing = max(0, padding + frames - y.shape[1])  # output_padding may reach beyond the last tap
        return _padded(y, 0, missing)[:, padding : padding + frames].astype(_result_type(input, weight))

    return conv_transpose1d


def _is_ordinary(input: object, weight: object, stride: object, padding: object, at_least_one: object) -> bool:
    """Whether a call is on the CPU and in order. MLX gets the others: it has the words for what is wrong in them."""
    import mlx.core as mx

    floats = (mx.float32, mx.float16, mx.bfloat16)
    return (
        mx.default_device() == mx.cpu
        and all(isinstance(x, mx.array) and x.ndim == 3 and x.size > 0 and x.dtype in floats for x in (input, weight))
        and all(isinstance(number, int) and number >= 1 for number in (stride, at_least_one))
        and isinstance(padding, int)
        and padding >= 0
    )


def _float32(x: "mx.array") -> "mx.array":
    """Only float32 reaches the BLAS."""
    import mlx.core as mx

    return x.astype(mx.float32)


def _result_type(input: "mx.array", weight: "mx.array") -> "mx.Dtype":
    import mlx.core as mx

    return mx.result_type(input, weight)


def _padded(x: "mx.array", before: int, after: int | None = None) -> "mx.array":
    """x (N, L, C) with zeros around its frames; as many after as before unless said otherwise."""
    import mlx.core as mx

    return mx.pad(x, [(0, 0), (before, before if after is None else after), (0, 0)])


def _product_per_tap(x: "mx.array", weight: "mx.array", frames: int, dilation: int) -> "mx.array":
    """x (N, L, C), weight (O, K, C) → (N, frames, O): each tap times a window of x, added up in the BLAS. No copies."""
    import mlx.core as mx

    taps = weight.transpose(1, 2, 0)
    total = x[:, :frames] @ taps[0]
    for k in range(1, weight.shape[1]):
        total = mx.addmm(total, x[:, k * dilation : k * dilation + frames], taps[k])
    return total


def _product_of_windows(x: "mx.array", weight: "mx.array", frames: int, stride: int, dilation: int) -> "mx.array":
    """x (N, L, C), weight (O, K, C) → (N, frames, O): each window of x copied into one row, in a single product."""
    import mlx.core as mx

    (batch, length, inner), (channels, kernel, _) = x.shape, weight.shape
    steps = (length * inner, stride * inner, dilation * inner, 1)
    windows = mx.as_strided(x, (batch, frames, kernel, inner), steps)
    return windows.reshape(batch, frames, kernel * inner) @ weight.reshape(channels, kernel * inner).T


def _transposed(conv1d: Convolution, x: "mx.array", weight: "mx.array", stride: int) -> "mx.array":
    """x (N, L, C), weight (O, K, C) → (N, at least (L - 1) · stride + K, O), by one plain convolution.

    The kernel is cut into blocks of `stride` taps. Output frame t · stride + r is the sum over the blocks j of x[t - j]
    times tap j · stride + r, so the blocks, in reverse, are the taps of a kernel with stride · O output channels.
    """
    (batch, length, inner), channels = x.shape, weight.shape[0]
    blocks = _blocks(weight, stride)
    count = blocks.shape[1]
    kernel = blocks[:, ::-1].transpose(2, 0, 1, 3).reshape(stride * channels, count, inner)
    y = conv1d(x, kernel, 1, count - 1)
    return y.reshape(batch, (length + count - 1) * stride, channels)


def _transposed_depthwise(x: "mx.array", weight: "mx.array", stride: int) -> "mx.array":
    """x (N, L, C), weight (C, K, 1) → (N, at least (L - 1) · stride + K, C), by the same blocks for each channel."""
    batch, length, channels = x.shape
    taps = _blocks(weight, stride)[:, ::-1, :, 0].transpose(1, 2, 0)  # (blocks, stride, C)
    count = taps.shape[0]
    x, frames = _padded(x, count - 1)[:, :, None], length + count - 1
    y = x[:, :frames] * taps[0]
    for j in range(1, count):
        y = y + x[:, j : j + frames] * taps[j]
    return y.reshape(batch, frames * stride, channels)


def _blocks(weight: "mx.array", stride: int) -> "mx.array":
    """weight (O, K, C) → (O, ⌈K / stride⌉, stride, C), filled up with zeros."""
    channels, kernel, inner = weight.shape
    count = -(-kernel // stride)
    return _padded(weight, 0, count * stride - kernel).reshape(channels, count, stride, inner)
