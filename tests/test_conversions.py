"""The conversions: small inputs with known results, then the real weights and the engines that load them."""

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors import safe_open
from safetensors.numpy import load_file

import embedded_models
from conversions import write_safetensors
from conversions.kokoro_onnx_to_mlx import dequantize, kokoro_weights, lstm_gates_iofc_to_ifgo, module_path
from conversions.packaged_file import joined_bytes
from conversions.whisper_ct2_to_mlx import (
    TIMESTAMPS,
    read_model_bin,
    whisper_config,
    whisper_weights,
    with_timestamps,
)

FloatArray = NDArray[np.float32]

KOKORO_TENSORS = 548
KOKORO_PARAMETERS = 81_763_410
CLIPS = resources.files("pytest_audioeval") / "samples" / "audio" / "en"


def ignore(_done: float) -> None:
    """Takes a report."""


# Quantised weights and LSTM gates


@pytest.mark.parametrize(
    ("quantized", "scale", "zero_point", "expected"),
    [
        pytest.param([[0, 128, 255]], 0.5, 128, [[-64, 0, 63.5]], id="one scale for the tensor"),
        pytest.param([[1, 2], [3, 4]], [1, 10], [0, 2], [[1, 0], [3, 20]], id="one for each channel of a matrix"),
        pytest.param([[[5]], [[5]]], [1, 2], [1, 2], [[[4]], [[6]]], id="one for each direction of an LSTM"),
    ],
)
def test_dequantize(quantized: Any, scale: Any, zero_point: Any, expected: Any) -> None:
    result = dequantize(np.array(quantized, np.uint8), np.array(scale, np.float32), np.array(zero_point, np.uint8))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_signed_weights_are_dequantized_without_overflow() -> None:
    result = dequantize(np.array([-128, 127], np.int8), np.array(1, np.float32), np.array(127, np.int8))
    np.testing.assert_array_equal(result, [-255, 0])


def pytorch_lstm(steps: FloatArray, inputs: FloatArray, recurrent: FloatArray, bias: FloatArray) -> FloatArray:
    """The last hidden state, as torch.nn.LSTM defines it (gates i, f, g, o)."""
    hidden = cell = np.zeros(recurrent.shape[1], np.float32)
    for step in steps:
        i, f, g, o = np.split(inputs @ step + recurrent @ hidden + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        cell = f * cell + i * np.tanh(g)
        hidden = o * np.tanh(cell)
    return hidden


def test_reordered_gates_make_the_same_lstm() -> None:
    random = np.random.default_rng(0)
    width, hidden, length = 3, 2, 5
    inputs, recurrent, bias = (
        random.standard_normal(shape).astype(np.float32) for shape in ((4 * hidden, width), (4 * hidden, hidden), 16)
    )
    steps = random.standard_normal((length, width)).astype(np.float32)
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], ["", "Y_h"], hidden_size=hidden)
    feeds = {"X": steps[:, None], "W": inputs[None], "R": recurrent[None], "B": bias[None]}
    (expected,) = ReferenceEvaluator(node).run(None, feeds)[1:]

    both_biases = np.sum([lstm_gates_iofc_to_ifgo(half) for half in np.split(bias, 2)], axis=0)
    result = pytorch_lstm(steps, lstm_gates_iofc_to_ifgo(inputs), lstm_gates_iofc_to_ifgo(recurrent), both_biases)
    np.testing.assert_allclose(result, expected[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("node_name", "module"),
    [
        ("/decoder/decoder/encode/conv1/Conv_quant", "decoder.encode.conv1"),
        ("/decoder/decoder/resblocks.4/adain2.2/fc/Gemm_MatMul_quant", "decoder.resblocks.4.adain2.2.fc"),
        ("/decoder/decoder/asr_res/asr_res.0/Conv_quant", "decoder.asr_res.0"),
        ("/encoder/text_encoder/cnn.1/cnn.1.0/Conv_quant", "text_encoder.cnn.1.0"),
        ("/encoder/predictor/lstm/LSTM_quant", "predictor.lstm"),
        ("/encoder/shared/LSTM_quant", "predictor.shared"),
        ("/encoder/F0.1/pool/ConvTranspose", "predictor.F0.1.pool"),
        ("/encoder/N_proj/Conv_quant", "predictor.N_proj"),
        ("/encoder/bert/encoder/layer.0/attention/query_11/MatMul_quant", "bert.encoder.layer.0.attention.query"),
        ("/encoder/bert/encoder/layer.0/ffn_output_3/MatMul_quant", "bert.encoder.layer.0.ffn_output"),
    ],
)  # fmt: skip
def test_module_path(node_name: str, module: str) -> None:
    assert module_path(node_name) == module


# A small graph in the form of Kokoro's


def quantized_constant(name: str, values: Any, scale: Any, zero_point: Any) -> dict[str, NDArray[Any]]:
    return {
        f"{name}_quantized": np.array(values, np.uint8),
        f"{name}_scale": np.array(scale, np.float32),
        f"{name}_zero_point": np.array(zero_point, np.uint8),
    }


def graph(nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    output = helper.make_tensor_value_info("audio", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "small", [], [output], tensors))


def matmul(name: str, constant: str) -> onnx.NodeProto:
    inputs = ["x", f"{constant}_quantized", "x_zero_point", f"{constant}_zero_point"]
    return helper.make_node("MatMulInteger", inputs, ["y"], name=name)


def convolution(name: str, constant: str) -> onnx.NodeProto:
    inputs = ["x", f"{constant}_quantized", "x_zero_point", f"{constant}_zero_point"]
    return helper.make_node("ConvInteger", inputs, ["y"], name=name)


def converted(nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
    """The tensors without those that every checkpoint has."""
    weights = kokoro_weights(graph(nodes, constants), ignore)
    assert weights.pop("bert.pooler.weight").shape == (768, 768)
    assert weights.pop("bert.pooler.bias").shape == (768,)
    return weights


def test_matrices_are_transposed_and_a_layer_that_is_called_again_is_read_once() -> None:
    nodes = [
        matmul("/encoder/bert/query/MatMul_quant", "onnx::1"),
        matmul("/encoder/bert/query_1/MatMul_quant", "onnx::1"),
    ]
    weights = converted(nodes, quantized_constant("onnx::1", [[1, 2, 3], [4, 5, 6]], [1, 1, 2], [0, 0, 0]))
    assert list(weights) == ["bert.query.weight"]
    np.testing.assert_array_equal(weights["bert.query.weight"], [[1, 4], [2, 5], [6, 12]])


def test_two_weights_for_one_module_are_refused() -> None:
    nodes = [matmul("/encoder/bert/query/MatMul_quant", "a"), matmul("/encoder/bert/query_1/MatMul_quant", "b")]
    constants = quantized_constant("a", [[1]], 1, 0) | quantized_constant("b", [[2]], 1, 0)
    with pytest.raises(ValueError, match=r"two weights for bert\.query"):
        converted(nodes, constants)


def test_a_folded_weight_norm_is_taken_apart_and_a_named_weight_is_not() -> None:
    folded, plain = "/decoder/decoder/encode/Mul_output_0", "encoder.predictor.F0_proj.weight"
    nodes = [
        convolution("/decoder/decoder/encode/conv1/Conv_quant", folded),
        convolution("/encoder/F0_proj/Conv_quant", plain),
    ]
    constants = quantized_constant(folded, [[[3, 4]], [[0, 5]]], 2, 0) | quantized_constant(plain, [[[7]]], 1, 0)
    weights = converted(nodes, constants)
    assert set(weights) == {
        "decoder.encode.conv1.weight_v",
        "decoder.encode.conv1.weight_g",
        "predictor.F0_proj.weight",
    }
    np.testing.assert_array_equal(weights["decoder.encode.conv1.weight_v"], [[[6, 8]], [[0, 10]]])
    np.testing.assert_array_equal(weights["decoder.encode.conv1.weight_g"], [[[10]], [[10]]])


def test_embeddings_are_found_by_the_node_that_dequantizes_their_rows() -> None:
    name = "encoder.text_encoder.embedding.weight"
    inputs = ["rows", f"{name}_scale", f"{name}_zero_point"]
    node = helper.make_node(
        "DequantizeLinear", inputs, ["y"], name="/encoder/text_encoder/embedding/Gather_quant_Dequantize"
    )
    weights = converted([node], quantized_constant(name, [[10], [12]], 0.5, 10))
    np.testing.assert_array_equal(weights["text_encoder.embedding.weight"], [[0], [1]])


def test_named_floats_are_kept_and_other_constants_are_not() -> None:
    constants: dict[str, NDArray[Any]] = {
        "encoder.predictor.lstms.1.fc.bias": np.ones(2, np.float32),
        "decoder.decoder.generator.stft.window_sum": np.ones(2, np.float32),
        "/encoder/Constant_14_output_0": np.ones(2, np.float32),
        "encoder.lengths": np.ones(2, np.int64),
    }
    assert list(converted([], constants)) == ["predictor.lstms.1.fc.bias"]


def test_both_directions_of_an_lstm() -> None:
    hidden = 1
    constants: dict[str, NDArray[Any]] = {"B": np.arange(16, dtype=np.float32).reshape(2, 8 * hidden)}
    for name in ("W", "R"):
        constants |= quantized_constant(name, np.arange(8).reshape(2, 1, 4), [1, 10], [0, 0])
    inputs = [
        "X",
        "W_quantized",
        "R_quantized",
        "B",
        "",
        "",
        "",
        "",
        "W_scale",
        "W_zero_point",
        "R_scale",
        "R_zero_point",
    ]
    node = helper.make_node("DynamicQuantizeLSTM", inputs, ["y"], name="/encoder/shared/LSTM_quant")
    weights = converted([node], constants)
    assert len(weights) == 8
    np.testing.assert_array_equal(weights["predictor.shared.weight_ih_l0"], [[0], [2], [3], [1]])
    np.testing.assert_array_equal(weights["predictor.shared.weight_hh_l0_reverse"], [[40], [60], [70], [50]])
    np.testing.assert_array_equal(weights["predictor.shared.bias_ih_l0"], [0, 2, 3, 1])
    np.testing.assert_array_equal(weights["predictor.shared.bias_hh_l0_reverse"], [12, 14, 15, 13])


# Files


def test_safetensors_that_the_library_reads(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors: dict[str, NDArray[Any]] = {
        "a.transposed": matrix.T,
        "b": np.array([1, 2, 3], np.float16),
        "c": np.array(7, np.float32),
    }
    reports: list[float] = []
    write_safetensors(tmp_path / "x.safetensors", tensors, reports.append)
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "mlx"}
    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)
    assert reports == sorted(reports)
    assert reports[-1] == 1.0


# CTranslate2


def ct2_text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def model_bin(variables: Mapping[str, NDArray[Any]], version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """A model.bin as CTranslate2 writes it, with one alias at its end."""
    ids = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2, np.dtype(np.float16): 4}
    blob = struct.pack("<I", version) + ct2_text(spec) + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        blob += ct2_text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        blob += struct.pack("<BI", ids.get(array.dtype, 99), array.nbytes) + array.tobytes()
    return blob + struct.pack("<I", 1) + ct2_text("decoder/projection/weight") + ct2_text("decoder/embeddings/weight")


def linear_variables(name: str, rows: int, columns: int) -> dict[str, NDArray[Any]]:
    values = np.arange(rows * columns, dtype=np.float16).reshape(rows, columns)
    return {f"{name}/weight": values, f"{name}/bias": np.zeros(rows, np.float16)}


def small_whisper() -> dict[str, NDArray[Any]]:
    """One layer each, width 2; far from complete, but with each kind of variable."""
    variables: dict[str, NDArray[Any]] = {
        "encoder/num_heads": np.array(1, np.int16),
        "decoder/num_heads": np.array(1, np.int16),
        "encoder/conv1/weight": np.arange(12, dtype=np.float16).reshape(2, 2, 3),
        "encoder/position_encodings/encodings": np.ones((4, 2), np.float16),
        "decoder/position_encodings/encodings": np.ones((3, 2), np.float16),
        "decoder/embeddings/weight": np.ones((5, 2), np.float16),
        "decoder/layer_norm/gamma": np.ones(2, np.float16),
        "decoder/layer_norm/beta": np.zeros(2, np.float16),
    }
    for name, rows in (
        ("encoder/layer_0/self_attention/linear_0", 6),
        ("encoder/layer_0/ffn/linear_0", 8),
        ("decoder/layer_0/attention/linear_1", 4),
        ("decoder/layer_0/ffn/linear_0", 8),
    ):
        variables |= linear_variables(name, rows, 2)
    return variables


def test_model_bin_is_read_as_it_was_written() -> None:
    variables = small_whisper()
    read = read_model_bin(memoryview(model_bin(variables)))
    assert set(read) == set(variables)
    for name, array in variables.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("kept", [0, 3, 10, 30, 60, 200])
def test_a_model_bin_that_ends_early_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match="ends early"):
        read_model_bin(memoryview(model_bin(small_whisper())[:kept]))


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (model_bin({}, version=7), "version 7"),
        (model_bin({}, spec="TransformerSpec"), "TransformerSpec"),
        (model_bin({"x": np.ones(1, np.complex64)}), "not supported"),
    ],
)
def test_another_model_bin_is_refused(blob: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_model_bin(memoryview(blob))


def test_stacked_projections_come_apart_and_the_bias_of_the_keys_goes() -> None:
    weights = whisper_weights(small_whisper())
    np.testing.assert_array_equal(weights["encoder.blocks.0.attn.query.weight"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(weights["encoder.blocks.0.attn.value.weight"], [[8, 9], [10, 11]])
    np.testing.assert_array_equal(weights["decoder.blocks.0.cross_attn.key.weight"], [[0, 1], [2, 3]])
    assert "encoder.blocks.0.attn.value.bias" in weights
    assert not [name for name in weights if name.endswith("key.bias")]
    assert weights["encoder.conv1.weight"].shape == (2, 3, 2)
    assert "encoder.positional_embedding" not in weights
    assert {"decoder.positional_embedding", "decoder.token_embedding.weight", "decoder.ln.bias"} <= set(weights)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("encoder/layer_0/self_attention/linear_0/bias", np.ones(6, np.float16), "bias of the keys"),
        ("encoder/layer_0/self_attention/linear_9/bias", np.ones(6, np.float16), "unknown module"),
        ("decoder/embeddings/weight", np.ones((5, 2), np.int8), "quantised"),
    ],
)
def test_unexpected_variables_are_refused(name: str, array: NDArray[Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        whisper_weights({**small_whisper(), name: array})


def test_dimensions_come_from_the_shapes() -> None:
    config = whisper_config(small_whisper())
    assert config["n_audio_layer"] == config["n_text_layer"] == config["n_audio_head"] == 1
    assert (config["n_vocab"], config["n_text_ctx"], config["n_text_state"], config["n_mels"]) == (5, 3, 2, 2)


def test_timestamps_are_added_once_and_must_fill_the_vocabulary() -> None:
    tokenizer = {"model": {}, "added_tokens": [{"id": 4, "content": "<|notimestamps|>"}]}
    completed = with_timestamps(tokenizer, 5 + TIMESTAMPS)
    contents = {token["content"]: token["id"] for token in completed["added_tokens"]}
    assert (contents["<|0.00|>"], contents["<|0.02|>"], contents["<|30.00|>"]) == (5, 6, 5 + 1500)
    assert with_timestamps(completed, 5 + TIMESTAMPS) == completed
    assert len(tokenizer["added_tokens"]) == 1
    with pytest.raises(ValueError, match="no room"):
        with_timestamps(tokenizer, 5 + TIMESTAMPS + 1)


# The real weights


@pytest.fixture(scope="module")
def kokoro_graph() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(joined_bytes(embedded_models.KOKORO_82M.files["model.onnx"]))
    return model


@pytest.mark.real
def test_kokoro_for_mlx_is_complete(model_cache: Path) -> None:
    folder = embedded_models.checkpoint("kokoro-82m", "mlx", model_cache)
    weights = load_file(folder / "model.safetensors")
    assert len(weights) == KOKORO_TENSORS
    assert sum(tensor.size for tensor in weights.values()) == KOKORO_PARAMETERS
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(tensor).all() for tensor in weights.values())
    empty = {name for name, tensor in weights.items() if not tensor.any()}
    assert empty <= {"bert.pooler.weight", "bert.pooler.bias", *(name for name in weights if name.endswith("bias"))}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "kokoro"
    assert max(config["vocab"].values()) < config["n_token"]
    voices = sorted((folder / "voices").glob("*.safetensors"))
    assert len(voices) == 54
    assert {load_file(voice)["voice"].shape for voice in voices} == {(510, 1, 256)}


@pytest.mark.real
def test_kokoro_weights_are_those_of_the_graph(model_cache: Path, kokoro_graph: onnx.ModelProto) -> None:
    """Every matrix and convolution, computed again in float64, and placed by the name of its own constant."""
    weights = load_file(embedded_models.checkpoint("kokoro-82m", "mlx", model_cache) / "model.safetensors")
    constants = {tensor.name: tensor for tensor in kokoro_graph.graph.initializer}
    compared = 0
    for node in kokoro_graph.graph.node:
        if node.op_type not in ("MatMulInteger", "ConvInteger") or not node.input[1].endswith(".weight_quantized"):
            continue
        name = node.input[1].removesuffix("_quantized")
        quantized, scale, zero_point = (
            numpy_helper.to_array(constants[key]).astype(np.float64)
            for key in (node.input[1], f"{name}_scale", node.input[3])
        )
        exact = (quantized - zero_point) * scale
        tensor = weights[name.partition(".")[2]]
        np.testing.assert_allclose(tensor, exact.T if node.op_type == "MatMulInteger" else exact, rtol=1e-6, atol=0)
        compared += 1
    assert compared > 50


@pytest.mark.real
def test_kokoro_weight_norms_are_the_lengths_of_their_weights(model_cache: Path) -> None:
    weights = load_file(embedded_models.checkpoint("kokoro-82m", "mlx", model_cache) / "model.safetensors")
    normed = [name.removesuffix("_v") for name in weights if name.endswith(".weight_v")]
    assert len(normed) == 89
    for name in normed:
        lengths = np.linalg.norm(weights[f"{name}_v"].reshape(len(weights[f"{name}_v"]), -1), axis=1)
        np.testing.assert_allclose(weights[f"{name}_g"].ravel(), lengths, rtol=1e-5)


@pytest.mark.real
def test_kokoro_for_onnx_speaks(model_cache: Path) -> None:
    import onnxruntime

    folder = embedded_models.checkpoint("kokoro-82m", "onnx", model_cache)
    vocab = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab"]
    with np.load(folder / "voices.npz") as voices:
        assert len(voices.files) == 54
        assert {voices[name].shape for name in voices.files} == {(510, 1, 256)}
        style = voices["af_heart"][5].astype(np.float32)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokens = np.array([[0, *(vocab[phoneme] for phoneme in "həlˈO"), 0]], np.int64)
    (audio, *_) = session.run(None, {"tokens": tokens, "style": style, "speed": np.ones(1, np.float32)})
    assert audio.size > 24_000 / 4
    assert 0.05 < np.abs(audio).max() <= 1.0


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "vocabulary"),
    [("whisper-base", 244, 71_825_920, 51_865), ("whisper-tiny.en", 166, 37_184_256, 51_864)],
)
def test_whisper_for_mlx_is_complete(
    model_cache: Path, name: str, tensors: int, parameters: int, vocabulary: int
) -> None:
    folder = embedded_models.checkpoint(name, "mlx", model_cache)
    weights = load_file(folder / "model.safetensors")
    assert (len(weights), sum(tensor.size for tensor in weights.values())) == (tensors, parameters)
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype(np.float16)}
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["n_vocab"] == vocabulary
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert {token["content"]: token["id"] for token in tokens}["<|30.00|>"] == vocabulary - 1


def run_offline(code: str, *arguments: str | Path) -> str:
    """What `code` prints in a Python of its own that may not use the network."""
    no_network = (
        "import sys\n"
        "def no_network(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): sys.exit(f'used the network: {event} {arguments}')\n"
        "sys.addaudithook(no_network)\n"
    )
    command = [sys.executable, "-c", no_network + code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


LOAD_WITH_MLX_AUDIO = """
from pathlib import Path
from mlx.utils import tree_flatten
from mlx_audio.stt.utils import load_model as load_whisper
from mlx_audio.tts.utils import load_model as load_kokoro

kokoro, *whispers = map(Path, sys.argv[1:])
print(type(load_kokoro(kokoro, strict=True)).__module__)
for whisper in whispers:
    model = load_whisper(whisper, strict=True)
    tokenizer = model.get_tokenizer()
    print(type(model).__module__, model.is_multilingual, tokenizer.timestamp_begin, len(tokenizer.sot_sequence))
"""


@pytest.mark.real
def test_mlx_audio_loads_each_checkpoint_strictly_and_offline(model_cache: Path) -> None:
    names = ("kokoro-82m", "whisper-base", "whisper-tiny.en")
    folders = [embedded_models.checkpoint(name, "mlx", model_cache) for name in names]
    assert run_offline(LOAD_WITH_MLX_AUDIO, *folders).splitlines() == [
        "mlx_audio.tts.models.kokoro.kokoro",
        "mlx_audio.stt.models.whisper.whisper True 50364 3",
        "mlx_audio.stt.models.whisper.whisper False 50363 1",
    ]


TRANSCRIBE_WITH_MLX_AUDIO = """
from pathlib import Path
import mlx_cpu
mlx_cpu.accelerate(Path(sys.argv[3]))
import mlx.core as mx
from faster_whisper import decode_audio
from mlx_audio.stt.utils import load_model
model = load_model(Path(sys.argv[1]), strict=True)
model.set_dtype(mx.float32)
print(model.generate(decode_audio(sys.argv[2]), fp16=False, verbose=None).text)
"""

TRANSCRIBE_WITH_FASTER_WHISPER = """
from faster_whisper import WhisperModel, decode_audio
model = WhisperModel(sys.argv[1], device="cpu", compute_type="float32")
segments, _ = model.transcribe(decode_audio(sys.argv[2]), language="en")
print(*(segment.text for segment in segments))
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "checkpoint_format", "code"),
    [
        ("whisper-tiny.en", "mlx", TRANSCRIBE_WITH_MLX_AUDIO),
        ("whisper-tiny.en", "ctranslate2", TRANSCRIBE_WITH_FASTER_WHISPER),
        ("whisper-base", "ctranslate2", TRANSCRIBE_WITH_FASTER_WHISPER),
    ],
)
def test_whisper_transcribes_offline(
    model_cache: Path, name: str, checkpoint_format: embedded_models.CheckpointFormat, code: str
) -> None:
    folder = embedded_models.checkpoint(name, checkpoint_format, model_cache)
    printed = run_offline(code, folder, str(CLIPS / "quick_brown_fox.wav"), model_cache)
    assert printed.strip() == (CLIPS / "quick_brown_fox.txt").read_text(encoding="utf-8").strip()
