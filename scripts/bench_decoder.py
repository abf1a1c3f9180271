"""Time the declared decoder in every weight format, on one CPU thread, with random weights.

    OMP_NUM_THREADS=1 python scripts/bench_decoder.py [--shape embedded|qwen2-0.5b] [--rounds 3]

Prefill is timed whole at two prompt lengths, decoding at the longer one; each number is the best of the rounds, which
are interleaved so that a slow second of the machine meets every format. The ratios are to fp32 in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from edgevtc.exporter.decoder import WEIGHT_FORMATS, build_decoder
from edgevtc.exporter.decoder_config import DecoderConfig

EMBEDDED = DecoderConfig(
    hidden_size=192,
    num_layers=6,
    num_heads=6,
    num_kv_heads=3,
    head_dim=32,
    intermediate_size=512,
    vocab_size=75,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    max_positions=2048,
)
#: A sixth of Qwen2-0.5B: 4 of its 24 layers and as much of its 151936-token head, so their shares stay the same.
QWEN2_HALF_B = replace(
    EMBEDDED,
    hidden_size=896,
    num_layers=4,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=4864,
    vocab_size=151936 // 6,
)
SHAPES = {"embedded": EMBEDDED, "qwen2-0.5b": QWEN2_HALF_B}

PROMPTS = (128, 940)
DECODED = 12


class RandomWeights(Mapping[str, np.ndarray]):
    """Tensors of a checkpoint that was never trained; each is made when it is looked up."""

    def __init__(self, config: DecoderConfig) -> None:
        hidden, middle = config.hidden_size, config.intermediate_size
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        qkv = {"q": heads, "k": kv_heads, "v": kv_heads}
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            **{f"self_attn.{name}_proj.weight": (size, hidden) for name, size in qkv.items()},
            **{f"self_attn.{name}_proj.bias": (size,) for name, size in qkv.items()},
            "self_attn.o_proj.weight": (hidden, heads),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (middle, hidden),
            "mlp.up_proj.weight": (middle, hidden),
            "mlp.down_proj.weight": (hidden, middle),
        }
        self.shapes = {
            "embed_tokens.weight": (config.vocab_size, hidden),
            "norm.weight": (hidden,),
            **{f"layers.{i}.{name}": shape for i in range(config.num_layers) for name, shape in layer.items()},
        }

    def __getitem__(self, name: str) -> np.ndarray:
        normal = np.random.default_rng(0).standard_normal(self.shapes[name], dtype=np.float32)
        return normal * np.float32(0.02) + np.float32("norm" in name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Timed:
    """A session over a preallocated cache, and the best times seen of it."""

    def __init__(self, config: DecoderConfig, weight_format: str) -> None:
        model = build_decoder(config, RandomWeights(config), weight_format)
        self.megabytes = sum(value.const_value.nbytes for value in model.graph.initializers.values()) / 1e6
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        proto = ir.to_proto(model).SerializeToString()
        self.session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        shape = (1, config.num_kv_heads, PROMPTS[-1] + DECODED, config.head_dim)
        names = [value.name for value in self.session.get_inputs() if value.name.startswith("past")]
        self.cache = {name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in names}
        self.embeds = np.random.default_rng(0).standard_normal((1, shape[2], config.hidden_size), dtype=np.float32)
        self.best: dict[str, float] = {}

    def step(self, start: int, end: int) -> float:
        """Seconds of one call over tokens start to end."""
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(self.embeds[:, start:end]))
        binding.bind_cpu_input("position_ids", np.arange(start, end)[None])
        binding.bind_cpu_input("seqlens_k", np.array([end - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(end, np.int32))
        binding.bind_output("logits", "cpu")
        for name, buffer in self.cache.items():
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), buffer)
        began = time.perf_counter()
        self.session.run_with_iobinding(binding)
        return time.perf_counter() - began

    def round(self) -> None:
        """Time each phase once and keep the best."""
        times = {f"prefill {length}": self.step(0, length) for length in PROMPTS}
        longest = PROMPTS[-1]
        times["decode"] = float(np.median([self.step(longest + i, longest + i + 1) for i in range(DECODED)]))
        self.best = {phase: min(seconds, self.best.get(phase, seconds)) for phase, seconds in times.items()}


def main() -> None:
    """Print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="*", default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for shape in arguments.shape:
        candidates = {name: Timed(SHAPES[shape], name) for name in WEIGHT_FORMATS}
        for _ in range(arguments.rounds):
            for candidate in candidates.values():
                candidate.round()
        reference = candidates["fp32"].best
        print(f"\n{shape}, onnxruntime {ort.__version__}\n| format | MB | " + " | ".join(reference) + " |")
        print("|---" * (len(reference) + 2) + "|")
        for name, candidate in candidates.items():
            cells = [f"{1e3 * s:.2f} ms ({reference[phase] / s:.2f}x)" for phase, s in candidate.best.items()]
            print(f"| {name} | {candidate.megabytes:.1f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
