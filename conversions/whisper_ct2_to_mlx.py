"""Whisper: from CTranslate2's model.bin to the checkpoint that mlx-audio loads, in the precision it has.

Takes unquantised float models, multilingual or English only, whose vocabulary ends with the 1,501 timestamps.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions import Report, write_json, write_safetensors

Variables = dict[str, NDArray[Any]]

# CTranslate2's python/ctranslate2/specs/model_spec.py
CT2_VERSION = 6
CT2_DTYPES: Mapping[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

SAMPLE_RATE_HZ = 16_000
WINDOW_SECONDS = 30
HOP_SAMPLES = 160
FFT_SAMPLES = 400
AUDIO_POSITIONS = WINDOW_SECONDS * SAMPLE_RATE_HZ // HOP_SAMPLES // 2  # 1,500
TIMESTAMP_SECONDS = 0.02
TIMESTAMPS = round(WINDOW_SECONDS / TIMESTAMP_SECONDS) + 1  # 1,501: from 0.00 to 30.00

LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
MODULES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/embeddings": "decoder.token_embedding",
    "decoder/layer_norm": "decoder.ln",
}
# CTranslate2 stacks the projections that read the same input.
LAYER_MODULES: Mapping[str, tuple[str, ...]] = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp1",),
    "ffn/linear_1": ("mlp2",),
}


class ModelBinReader:
    """Walks through a model.bin: little-endian numbers, and texts that end with a zero byte."""

    def __init__(self, blob: memoryview) -> None:
        self._blob = blob
        self._position = 0

    def number(self, code: str) -> int:
        """The next unsigned number; `code` is its letter in `struct`."""
        (value,) = struct.unpack_from("<" + code, self._blob, self._position)
        self._position += struct.calcsize(code)
        return int(value)

    def bytes(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        piece = self._blob[self._position : self._position + count]
        if len(piece) < count:
            raise ValueError("model.bin ends early")
        self._position += count
        return piece

    def text(self) -> str:
        return bytes(self.bytes(self.number("H"))).rstrip(b"\0").decode()

    def array(self) -> NDArray[Any]:
        """The next array: a view of the blob, not a copy."""
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = CT2_DTYPES.get(self.number("B"))
        if dtype is None:
            raise ValueError("model.bin holds a type of number that is not supported")
        return np.frombuffer(self.bytes(self.number("I")), dtype).reshape(shape)


def read_model_bin(blob: memoryview) -> Variables:
    """The variables of a CTranslate2 Whisper model by name, as views of `blob`; aliases are left out.

    Raises ValueError for another kind of model, another version of the format, and a file that ends early.
    """
    reader = ModelBinReader(blob)
    try:
        version, spec, _revision = reader.number("I"), reader.text(), reader.number("I")
        if (version, spec) != (CT2_VERSION, "WhisperSpec"):
            raise ValueError(f"model.bin holds a {spec!r} in version {version}, not a WhisperSpec in {CT2_VERSION}")
        return {reader.text(): reader.array() for _ in range(reader.number("I"))}
    except struct.error as e:
        raise ValueError("model.bin ends early") from e


def mlx_modules(module: str) -> tuple[str, ...]:
    """The modules of mlx-audio's Whisper that one of CTranslate2's holds. Raises ValueError for an unknown one."""
    layer = re.fullmatch(r"(encoder|decoder)/layer_(\d+)/(.+)", module)
    if layer and layer[3] in LAYER_MODULES:
        return tuple(f"{layer[1]}.blocks.{layer[2]}.{name}" for name in LAYER_MODULES[layer[3]])
    if module in MODULES:
        return (MODULES[module],)
    raise ValueError(f"model.bin holds the unknown module {module}")


def unstacked(name: str, variable: NDArray[Any]) -> Variables:
    """The tensors that one variable becomes; Whisper's keys have no bias, so CTranslate2's is zero and goes."""
    module, _, leaf = name.rpartition("/")
    modules = mlx_modules(module)
    tensors = {}
    for target, tensor in zip(modules, np.split(variable, len(modules)), strict=True):
        if not (target.endswith(".key") and leaf == "bias"):
            tensors[f"{target}.{LEAVES[leaf]}"] = tensor
        elif np.any(tensor):
            raise ValueError(f"{name}: the bias of the keys is not zero")
    return tensors


def whisper_weights(variables: Variables) -> Variables:
    """The tensors of mlx-audio's Whisper by name, in the precision of `variables`. Raises ValueError."""
    weights: Variables = {"decoder.positional_embedding": variables["decoder/position_encodings/encodings"]}
    for name, variable in variables.items():
        # Numbers describe the model. The encoder's positions are sinusoids, which mlx-audio computes.
        if variable.ndim == 0 or "/position_encodings/" in name:
            continue
        if variable.dtype not in (np.float16, np.float32):
            raise ValueError(f"{name} is quantised")
        # MLX has the kernels of a convolution as [out, width, in], CTranslate2 as [out, in, width].
        weights.update(unstacked(name, variable.transpose(0, 2, 1) if variable.ndim == 3 else variable))
    return weights


def layer_count(variables: Variables, side: str) -> int:
    """How many layers the `side`, encoder or decoder, has."""
    return sum(re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/bias", name) is not None for name in variables)


def whisper_config(variables: Variables) -> dict[str, Any]:
    """The checkpoint's config.json: the dimensions, from the shapes of the variables."""
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    return {
        "model_type": "whisper",
        "n_mels": variables["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": AUDIO_POSITIONS,
        "n_audio_state": width,
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": layer_count(variables, "encoder"),
        "n_vocab": vocabulary,
        "n_text_ctx": variables["decoder/position_encodings/encodings"].shape[0],
        "n_text_state": width,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": layer_count(variables, "decoder"),
    }


def with_timestamps(tokenizer: Mapping[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """The tokenizer.json with the tokens `<|0.00|>` … `<|30.00|>`, which mlx-audio looks up by name.

    CTranslate2's tokenizers end before them. Raises ValueError where they would not fill the vocabulary.
    """
    tokens = list(tokenizer["added_tokens"])
    if any(token["content"] == "<|0.00|>" for token in tokens):
        return dict(tokenizer)
    first = 1 + max(token["id"] for token in tokens)
    if first + TIMESTAMPS != vocabulary_size:
        raise ValueError(f"{vocabulary_size} tokens leave no room for {TIMESTAMPS} timestamps from {first} on")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for step in range(TIMESTAMPS):
        tokens.append({"id": first + step, "content": f"<|{step * TIMESTAMP_SECONDS:.2f}|>", **flags})
    return {**tokenizer, "added_tokens": tokens}


# transformers looks for an unknown token for ever where none is named.
TOKENIZER_CONFIG = {
    "tokenizer_class": "WhisperTokenizer",
    "model_max_length": 1024,
    "add_prefix_space": False,
    **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}


def preprocessor_config(mel_bands: int) -> dict[str, Any]:
    """The checkpoint's preprocessor_config.json, which transformers asks for."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mel_bands,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": FFT_SAMPLES,
        "chunk_length": WINDOW_SECONDS,
        "n_samples": WINDOW_SECONDS * SAMPLE_RATE_HZ,
        "nb_max_frames": 2 * AUDIO_POSITIONS,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def convert(
    model_bin: memoryview,
    ct2_config: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    folder: Path,
    report: Report,
) -> None:
    """Write the six files of the checkpoint into `folder`. Raises OSError and ValueError.

    `ct2_config` and `tokenizer` are the contents of CTranslate2's config.json and tokenizer.json.
    """
    variables = read_model_bin(model_bin)
    config = whisper_config(variables)
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", with_timestamps(tokenizer, config["n_vocab"]))
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(folder / "preprocessor_config.json", preprocessor_config(config["n_mels"]))
    # mlx-audio takes the attention heads that word timestamps need from here.
    write_json(folder / "generation_config.json", {"alignment_heads": ct2_config["alignment_heads"]})
    write_safetensors(folder / "model.safetensors", whisper_weights(variables), report)
