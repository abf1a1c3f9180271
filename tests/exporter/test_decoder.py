from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from edgevtc.errors import ConfigError, ExportError
from edgevtc.exporter.decoder import BLOCK_SIZES, WEIGHT_FORMATS, build_decoder
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.quantize import dequantize_blocks

pytestmark = pytest.mark.export

CAPACITY = 256

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 203,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
}

#: The embedded checkpoint's language model: no width a multiple of 128 but one, and a vocabulary of odd size.
EMBEDDED = {
    **SMALL,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "vocab_size": 75,
}

#: Two layers with the heads and the width of Qwen2-0.5B, and a quarter of its MLP.
HALF_B = {
    **SMALL,
    "hidden_size": 896,
    "intermediate_size": 1216,
    "num_hidden_layers": 2,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}

#: An intermediate size that no block divides.
ODD = {**SMALL, "intermediate_size": 300}


#: 14 text tokens, 66 kept of 900 visual ones, 20 text tokens.
POSITIONS = np.concatenate(
    [
        np.arange(14),
        np.sort(np.random.default_rng(0).choice(np.arange(14, 914), 66, replace=False)),
        np.arange(914, 934),
    ]
)


def random_model(shape: Mapping[str, object], *, tied: bool = True) -> Qwen2ForCausalLM:
    """A model whose norms, biases and attention are far enough from trivial for a mistake in any to show."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=tied)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.15 if "q_proj" in name or "k_proj" in name else 0.06 if parameter.ndim > 1 else 0.2
            parameter.normal_(1.0 if "norm" in name else 0.0, spread)
    return model


def named_weights(model: Qwen2ForCausalLM) -> dict[str, np.ndarray]:
    return {name.removeprefix("model."): tensor.numpy() for name, tensor in model.state_dict().items()}


def declare(model: Qwen2ForCausalLM, **options: object) -> ir.Model:
    return build_decoder(DecoderConfig.from_text_config(model.config.to_dict()), named_weights(model), **options)


class Decoder:
    """A session over one preallocated cache, bound as past and present."""

    def __init__(self, model: ir.Model) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        proto = ir.to_proto(model).SerializeToString()
        self.session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        self.length = 0
        self.cache = {
            value.name: ort.OrtValue.ortvalue_from_numpy(
                np.full((1, value.shape[1], CAPACITY, value.shape[3]), 1e3, np.float32)
            )
            for value in self.session.get_inputs()
            if value.name.startswith("past_key_values.")
        }

    def __call__(self, embeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Append tokens [S, H] and return their logits [S or 1, V]."""
        self.length += len(embeds)
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeds[None]))
        binding.bind_cpu_input("position_ids", np.asarray(positions, np.int64)[None])
        binding.bind_cpu_input("seqlens_k", np.array([self.length - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(self.length, np.int32))
        binding.bind_output("logits", "cpu")
        for name, buffer in self.cache.items():
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), buffer)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()[0]

    def in_chunks(self, embeds: np.ndarray, positions: np.ndarray, cuts: list[int]) -> np.ndarray:
        chunks = zip(np.split(embeds, cuts), np.split(positions, cuts), strict=True)
        return np.concatenate([self(*chunk) for chunk in chunks])


@torch.no_grad()
def reference(model: Qwen2ForCausalLM, embeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    # Without a mask, transformers takes a jump in position_ids for the start of another packed sequence.
    return (
        model(
            inputs_embeds=torch.from_numpy(embeds)[None],
            position_ids=torch.from_numpy(positions)[None],
            attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
        )
        .logits[0]
        .numpy()
    )


def embeds_for(model: Qwen2ForCausalLM) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((len(POSITIONS), model.config.hidden_size), dtype=np.float32)


def assert_close(logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def cosines(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(logits, axis=-1) * np.linalg.norm(expected, axis=-1)
    return (logits * expected).sum(-1) / norms


@pytest.mark.parametrize(
    ("shape", "tied"),
    [
        pytest.param(SMALL, True, id="tied"),
        pytest.param(SMALL, False, id="untied"),
        pytest.param(EMBEDDED, True, id="embedded"),
        pytest.param(HALF_B, True, id="qwen2-0.5b-width"),
    ],
)
def test_logits_are_those_of_transformers(shape: Mapping[str, object], tied: bool) -> None:
    model = random_model(shape, tied=tied)
    embeds = embeds_for(model)
    expected = reference(model, embeds, POSITIONS)
    decoder = Decoder(declare(model, logits="all"))

    assert_close(decoder(embeds, POSITIONS), expected)

    decoder.length = 0
    assert_close(decoder.in_chunks(embeds, POSITIONS, [40, 73, 97, 98, 99]), expected)


def test_positions_matter_and_are_those_given() -> None:
    # GroupQueryAttention's own rotary embedding would pass every other test with contiguous positions.
    model = random_model(SMALL)
    embeds, contiguous = embeds_for(model), np.arange(len(POSITIONS))
    decoder = Decoder(declare(model))
    jumping = decoder(embeds, POSITIONS)
    decoder.length = 0
    assert np.abs(decoder(embeds, contiguous) - jumping).max() > 0.05 * np.abs(jumping).max()


def test_only_the_last_token_gets_logits_by_default() -> None:
    model = random_model(SMALL)
    embeds = embeds_for(model)
    decoder = Decoder(declare(model))
    assert_close(decoder(embeds, POSITIONS), reference(model, embeds, POSITIONS)[-1:])


@pytest.mark.parametrize(
    ("shape", "weight_format", "block_size", "bound"),
    [
        pytest.param(SMALL, "int8", 128, 0.9995, id="int8-b128"),
        pytest.param(SMALL, "w8a8", 128, 0.999, id="w8a8"),
        pytest.param(SMALL, "int4", 128, 0.97, id="int4-b128"),
        pytest.param(SMALL, "int4", 32, 0.98, id="int4-b32"),
        pytest.param(EMBEDDED, "int8", 128, 0.995, id="embedded-int8"),
        pytest.param(EMBEDDED, "w8a8", 128, 0.985, id="embedded-w8a8"),
        pytest.param(ODD, "int8", 64, 0.9995, id="int8-padded-block"),
        pytest.param(ODD, "int4", 64, 0.97, id="int4-padded-block"),
        pytest.param(ODD, "w8a8", 64, 0.999, id="w8a8-odd-width"),
    ],
)
def test_quantized_decoder_is_close_and_the_same_in_chunks_and_after_rewinding(
    shape: Mapping[str, object], weight_format: str, block_size: int, bound: float
) -> None:
    model = random_model(shape)
    embeds = embeds_for(model)
    decoder = Decoder(declare(model, weight_format=weight_format, logits="all", block_size=block_size))
    logits, expected = decoder(embeds, POSITIONS), reference(model, embeds, POSITIONS)
    assert cosines(logits, expected).mean() > bound

    # Some kernels round a row otherwise beside others, and a quantized activation passes that on as a whole code.
    rounding = np.abs(logits - expected).max() / 4
    decoder.length = 40
    assert np.abs(decoder(embeds[40:], POSITIONS[40:]) - logits[40:]).max() < rounding

    decoder.length = 0
    assert np.abs(decoder.in_chunks(embeds, POSITIONS, [33, 66]) - logits).max() < rounding


def test_w8a8_does_not_saturate_at_the_largest_weights() -> None:
    # Every weight of a row at its largest magnitude, and every activation at its own: pairs of products of full 8-bit
    # codes would overflow the 16 bits in which x86 without VNNI adds them.
    model = random_model(SMALL)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                parameter.copy_(parameter.sign() * 0.06)
    embeds = np.sign(embeds_for(model))
    decoder = Decoder(declare(model, weight_format="w8a8", logits="all"))
    assert cosines(decoder(embeds, POSITIONS), reference(model, embeds, POSITIONS)).mean() > 0.998


def test_zero_activations_stay_zero_in_w8a8() -> None:
    model = random_model(SMALL)
    decoder = Decoder(declare(model, weight_format="w8a8", logits="all"))
    embeds = np.zeros((3, model.config.hidden_size), np.float32)
    assert cosines(decoder(embeds, np.arange(3)), reference(model, embeds, np.arange(3))).min() > 0.99


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_interface_and_names(weight_format: str) -> None:
    model = declare(random_model(SMALL), weight_format=weight_format)
    graph = model.graph
    assert (model.ir_version, dict(graph.opset_imports)) == (10, {"": 21, "com.microsoft": 1})

    cache = [f"{layer}.{kind}" for layer in range(SMALL["num_hidden_layers"]) for kind in ("key", "value")]
    assert {value.name: list(map(str, value.shape)) for value in graph.inputs} == {
        "inputs_embeds": ["1", "sequence", "128"],
        "position_ids": ["1", "sequence"],
        "seqlens_k": ["1"],
        "total_sequence_length": [],
        **{f"past_key_values.{name}": ["1", "2", "past", "32"] for name in cache},
    }
    assert {value.name: list(map(str, value.shape)) for value in graph.outputs} == {
        "logits": ["1", "1", "203"],
        **{f"present.{name}": ["1", "2", "total", "32"] for name in cache},
    }

    names = [node.name for node in graph]
    assert len(set(names)) == len(names)
    known = ("layers.", "norm", "last_token", "lm_head")
    assert all(name.startswith(known) for name in names)
    assert {"layers.0.self_attn.qkv_proj", "layers.2.mlp.down_proj", "layers.1.self_attn"} <= set(names)
    assert all(
        name.startswith((*known, "rotary."))
        for name, value in graph.initializers.items()
        if value.const_value.nbytes > 1024
    )


def test_head_of_a_quantized_tied_decoder_gives_the_embeddings() -> None:
    model = random_model(EMBEDDED)
    initializers = declare(model, weight_format="w8a8").graph.initializers
    codes, scales = (
        initializers[f"lm_head.weight.{kind}"].const_value.numpy()[[3, 70]] for kind in ("codes", "scales")
    )
    embeddings = named_weights(model)["embed_tokens.weight"][[3, 70]]
    np.testing.assert_allclose(dequantize_blocks(codes, scales, 8, 192), embeddings, atol=np.abs(scales).max())


def test_weights_are_read_one_at_a_time_when_written() -> None:
    model = random_model(SMALL)

    class Recorder(Mapping):
        """As a lazy checkpoint: even asking whether a tensor is there reads it."""

        def __init__(self, tensors: dict[str, np.ndarray]) -> None:
            self.tensors = tensors
            self.read: list[str] = []

        def __getitem__(self, name: str) -> np.ndarray:
            self.read.append(name)
            return self.tensors[name].astype(np.float16)

        def __iter__(self) -> Iterator[str]:
            return iter(self.tensors)

        def __len__(self) -> int:
            return len(self.tensors)

    weights = Recorder(named_weights(model))
    config = DecoderConfig.from_text_config(model.config.to_dict())
    graph = build_decoder(config, weights, "int8").graph
    assert not any(name.endswith("_proj.weight") or "embed" in name for name in weights.read)
    for value in graph.initializers.values():
        value.const_value.tobytes()
    # Codes and scales come from one reading.
    assert sorted(weights.read) == sorted(set(weights.read))
    assert "layers.2.mlp.up_proj.weight" in weights.read


def test_missing_tensor_is_named_before_anything_is_written() -> None:
    model = random_model(SMALL)
    weights = named_weights(model)
    del weights["layers.1.self_attn.k_proj.bias"]
    with pytest.raises(ExportError, match=r"layers\.1\.self_attn\.k_proj\.bias"):
        build_decoder(DecoderConfig.from_text_config(model.config.to_dict()), weights)


def test_vector_of_another_shape_is_named_before_anything_is_written() -> None:
    model = random_model(SMALL)
    weights = named_weights(model)
    weights["norm.weight"] = weights["norm.weight"][:-1]
    with pytest.raises(ExportError, match=r"'norm\.weight'.*\[127\].*\[128\]"):
        build_decoder(DecoderConfig.from_text_config(model.config.to_dict()), weights)


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_matrix_of_another_shape_is_named_when_it_is_written(weight_format: str) -> None:
    model = random_model(SMALL)
    weights = named_weights(model)
    weights["layers.0.mlp.down_proj.weight"] = weights["layers.0.mlp.down_proj.weight"].T
    graph = build_decoder(DecoderConfig.from_text_config(model.config.to_dict()), weights, weight_format).graph
    with pytest.raises(ExportError, match=r"layers\.0\.mlp\.down_proj\.weight.*\[352, 128\].*\[128, 352\]"):
        for value in graph.initializers.values():
            value.const_value.tobytes()


@pytest.mark.parametrize(
    ("options", "valid"),
    [
        ({"weight_format": "fp8"}, WEIGHT_FORMATS),
        ({"logits": "none"}, ("last", "all")),
        ({"block_size": 48}, BLOCK_SIZES),
    ],
)
def test_unknown_options_list_the_valid_ones(options: dict[str, object], valid: object) -> None:
    with pytest.raises(ConfigError) as error:
        declare(random_model(SMALL), **options)
    assert all(str(value) in str(error.value) for value in valid)
