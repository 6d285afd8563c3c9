"""Kokoro-82M: from the quantised ONNX export to the float32 checkpoint that mlx-audio loads.

The result has PyTorch's names and layouts (mlx-audio transposes while it loads). An export folds, renames and
quantises weights, so they are found through the nodes that use them: a node's name still tells its module.
Voices are not part of this.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from conversions import Report, write_json, write_safetensors

FloatArray = NDArray[np.float32]
Tensors = dict[str, FloatArray]

QUANTIZED = "_quantized"
SCALE = "_scale"

# In the checkpoint but not in the graph, because Kokoro never calls it. mlx-audio asks for it all the same.
POOLER_WIDTH = 768

# hexgrad/Kokoro-82M, config.json
ARCHITECTURE: Mapping[str, Any] = {
    "model_type": "kokoro",
    "sample_rate": 24_000,
    "dim_in": 64,
    "dropout": 0.2,
    "hidden_dim": 512,
    "max_conv_dim": 512,
    "max_dur": 50,
    "multispeaker": True,
    "n_layer": 3,
    "n_mels": 80,
    "n_token": 178,
    "style_dim": 128,
    "text_encoder_kernel_size": 5,
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "resblock_kernel_sizes": [3, 7, 11],
        "upsample_initial_channel": 512,
    },
    "plbert": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 2048,
        "max_position_embeddings": 512,
        "num_hidden_layers": 12,
        "dropout": 0.1,
    },
}


class Initializers:
    """The constants of an ONNX graph by name, decoded when they are asked for."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def array(self, name: str) -> NDArray[Any]:
        """The constant as it is stored. Raises KeyError."""
        array: NDArray[Any] = numpy_helper.to_array(self._tensors[name])
        return array

    def weight(self, name: str, zero_point: str | None = None) -> FloatArray:
        """The constant as float32; the quantised ones have their scale beside them, and share zero points."""
        if not name.endswith(QUANTIZED):
            return self.array(name).astype(np.float32)
        scale = self.array(name.removesuffix(QUANTIZED) + SCALE)
        return dequantize(self.array(name), scale, self.array(zero_point) if zero_point else np.uint8(0))

    def trained_floats(self) -> Tensors:
        """The weights that kept their name and their type: biases, norms, alphas."""
        return {
            name.partition(".")[2]: self.array(name)
            for name, tensor in self._tensors.items()
            if tensor.data_type == onnx.TensorProto.FLOAT
            and name.startswith(("encoder.", "decoder."))
            and not name.endswith(SCALE)
            and ".stft." not in name
        }


def dequantize(quantized: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any] | np.integer[Any]) -> FloatArray:
    """`(quantized - zero_point) * scale` in float32, shape of `quantized`.

    Scale and zero point are scalars (one for the tensor), shape (channels,) for a matrix [inputs, channels], or shape
    (directions,) for the stacked matrices of an LSTM [directions, inputs, 4 * hidden].
    """
    parameters = [np.asarray(parameter, np.float32) for parameter in (scale, zero_point)]
    if quantized.ndim == 3:
        parameters = [parameter[:, None, None] if parameter.ndim else parameter for parameter in parameters]
    scale, zero_point = parameters
    return (quantized.astype(np.float32) - zero_point) * scale


def lstm_gates_iofc_to_ifgo(stacked: NDArray[Any]) -> NDArray[Any]:
    """Reorder the four gates along the first axis, shape (4 * hidden, …), from ONNX's order to PyTorch's (c is g)."""
    input_gate, output_gate, forget_gate, cell_gate = np.split(stacked, 4)
    return np.concatenate([input_gate, forget_gate, cell_gate, output_gate])


def module_path(node_name: str) -> str:
    """The module that a node belongs to: `/decoder/decoder/encode/conv1/Conv_quant` → `decoder.encode.conv1`.

    The export wraps the model in two modules, `encoder` and `decoder`, and calls parts of the predictor by themselves.
    """
    path: list[str] = []
    for segment in node_name.strip("/").split("/")[1:-1]:
        if path and segment.startswith(path[-1] + "."):
            path.pop()  # `cnn.0/cnn.0.0` is the one module `cnn.0.0`
        path.append(segment)
    if path[0] in ("shared", "F0_proj", "N_proj") or path[0].startswith(("F0.", "N.")):
        path.insert(0, "predictor")
    # ALBERT calls its one layer twelve times: `query`, `query_1`, …
    return re.sub(r"_\d+$", "", ".".join(path))


def convolution(node: onnx.NodeProto, initializers: Initializers) -> Tensors:
    """Weight [out, in, width] of a convolution. Most are weight-normed, which PyTorch keeps as direction and length."""
    name = node.input[1]
    weight = initializers.weight(name, node.input[3] if node.op_type == "ConvInteger" else None)
    # A weight norm is folded into the product of two weights, so what is named `weight` never had one.
    if name.removesuffix(QUANTIZED).endswith(".weight"):
        return {"weight": weight}
    length = np.sqrt(np.square(weight, dtype=np.float64).sum(axis=(1, 2), keepdims=True))
    return {"weight_v": weight, "weight_g": length.astype(np.float32)}


def linear(node: onnx.NodeProto, initializers: Initializers) -> Tensors:
    """Weight [out, in] of a matrix product, which ONNX stores as [in, out]."""
    zero_point = node.input[3] if node.op_type == "MatMulInteger" else None
    return {"weight": initializers.weight(node.input[1], zero_point).T}


def lstm(node: onnx.NodeProto, initializers: Initializers) -> Tensors:
    """The eight tensors of a two-way LSTM, from [direction, in, 4 * hidden] and biases [direction, 8 * hidden]."""
    inputs = initializers.weight(node.input[1], node.input[9])
    recurrent = initializers.weight(node.input[2], node.input[11])
    biases = initializers.weight(node.input[3])
    tensors: Tensors = {}
    for direction, suffix in enumerate(("l0", "l0_reverse")):
        bias_inputs, bias_recurrent = np.split(biases[direction], 2)
        tensors[f"weight_ih_{suffix}"] = lstm_gates_iofc_to_ifgo(inputs[direction].T)
        tensors[f"weight_hh_{suffix}"] = lstm_gates_iofc_to_ifgo(recurrent[direction].T)
        tensors[f"bias_ih_{suffix}"] = lstm_gates_iofc_to_ifgo(bias_inputs)
        tensors[f"bias_hh_{suffix}"] = lstm_gates_iofc_to_ifgo(bias_recurrent)
    return tensors


def embedding(node: onnx.NodeProto, initializers: Initializers) -> Tensors:
    """Weight [tokens, width] of an embedding, whose rows are dequantised after they are picked."""
    return {"weight": initializers.weight(node.input[1].removesuffix(SCALE) + QUANTIZED, node.input[2])}


# What reads a node of each kind; their second input is a constant of the graph, or they hold no weights.
READERS: Mapping[str, Callable[[onnx.NodeProto, Initializers], Tensors]] = {
    "Conv": convolution,
    "ConvInteger": convolution,
    "ConvTranspose": convolution,
    "DequantizeLinear": embedding,
    "DynamicQuantizeLSTM": lstm,
    "MatMul": linear,
    "MatMulInteger": linear,
}


def kokoro_weights(model: onnx.ModelProto, report: Report) -> Tensors:
    """All 548 tensors of the checkpoint, float32, by PyTorch name. Raises ValueError for a graph of another shape."""
    initializers = Initializers(model.graph)
    weights = initializers.trained_floats()
    constants: dict[str, str] = {}
    for number, node in enumerate(model.graph.node, 1):
        reader = READERS.get(node.op_type)
        if reader is None or node.input[1] not in initializers or "/stft/" in node.name:
            continue
        module = module_path(node.name)
        constant = constants.setdefault(module, node.input[1])
        if constant != node.input[1]:
            raise ValueError(f"two weights for {module}: {constant} and {node.input[1]}")
        if f"{module}.weight" not in weights:  # a layer that is called again has the same weight
            weights.update({f"{module}.{name}": tensor for name, tensor in reader(node, initializers).items()})
        report(number / len(model.graph.node))
    weights["bert.pooler.weight"] = np.zeros((POOLER_WIDTH, POOLER_WIDTH), np.float32)
    weights["bert.pooler.bias"] = np.zeros(POOLER_WIDTH, np.float32)
    return weights


def kokoro_config(vocab: Mapping[str, int]) -> dict[str, Any]:
    """The checkpoint's config.json. `vocab`: token of each phoneme character."""
    return {**ARCHITECTURE, "vocab": dict(vocab)}


def convert(model: onnx.ModelProto, vocab: Mapping[str, int], folder: Path, report: Report) -> None:
    """Write config.json and model.safetensors (327 MB) into `folder`. Raises OSError and ValueError."""
    weights = kokoro_weights(model, lambda done: report(done / 2))
    write_json(folder / "config.json", kokoro_config(vocab))
    write_safetensors(folder / "model.safetensors", weights, lambda done: report(0.5 + done / 2))
