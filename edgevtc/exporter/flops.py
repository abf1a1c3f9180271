"""The cost of prefill, by one convention that is named wherever the number stands."""

from __future__ import annotations

from edgevtc.exporter.decoder_config import DecoderConfig

__all__ = ["FLOPS_CONVENTION", "prefill_gflops"]

FLOPS_CONVENTION = (
    "multiply-accumulates of the decoder's prefill over visual tokens alone: "
    "layers * (n*d^2*(2 + 2*kv_heads/heads) + 2*n^2*d + 3*n*d*d_ff), n kept tokens (InfoMerge, eq. 13-17)"
)


def prefill_gflops(config: DecoderConfig, tokens: int) -> float:
    """10⁹ multiply-accumulates to prefill ``tokens`` visual tokens, by :data:`FLOPS_CONVENTION`."""
    width = config.hidden_size
    attention = tokens * width**2 * (2 + 2 * config.num_kv_heads / config.num_heads) + 2 * tokens**2 * width
    return config.num_layers * (attention + 3 * tokens * width * config.intermediate_size) / 1e9
