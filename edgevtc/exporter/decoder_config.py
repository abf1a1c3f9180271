"""The shape of a decoder, read from a checkpoint's text config; what the declared graph cannot express is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgevtc.errors import ExportError, choices

__all__ = ["DecoderConfig"]

#: Architectures with the declared layer: RMS norm, biased QKV, grouped-query attention with RoPE, SwiGLU.
MODEL_TYPES = ("qwen2",)


@dataclass(frozen=True)
class DecoderConfig:
    """What the graph of a Qwen2 decoder depends on besides the weights.

    Attributes:
        hidden_size: Width of the residual stream.
        num_layers: Transformer layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; each serves num_heads / num_kv_heads query heads.
        head_dim: Width of one head, even.
        intermediate_size: Width between the MLP's projections.
        vocab_size: Rows of the language-model head.
        rope_theta: Base of the rotary frequencies.
        rms_norm_eps: Added to the mean square in every norm.
        tie_word_embeddings: Whether the head's weight is the token embedding.
        max_positions: Rows of the rotary tables: every original position id must be below it.

    Raises:
        ExportError: Sizes that contradict each other.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_positions: int

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if field != "tie_word_embeddings" and value <= 0:
                raise ExportError(f"text config: {field}={value} is not valid: give a number above 0")
        if self.num_heads % self.num_kv_heads:
            raise ExportError(
                f"text config: num_attention_heads={self.num_heads} is not a multiple of "
                f"num_key_value_heads={self.num_kv_heads}: the checkpoint's config is damaged"
            )
        if self.head_dim % 2:
            raise ExportError(f"text config: head_dim={self.head_dim} is odd: rotary embeddings need pairs of channels")

    @classmethod
    def from_text_config(cls, config: Mapping[str, Any], *, max_positions: int | None = None) -> DecoderConfig:
        """Read a text config in the layout of transformers, of version 4 or 5.

        Args:
            config: With its defaults filled in, as `to_dict()` gives it; config.json leaves many of them out. Of a
                multimodal checkpoint, its ``text_config``.
            max_positions: Rows of the rotary tables, where fewer than ``max_position_embeddings`` will do.

        Raises:
            ExportError: A field is missing, or asks for something this decoder does not do; the message names it.
        """
        _refuse_unsupported(config)
        heads, hidden = _required(config, "num_attention_heads"), _required(config, "hidden_size")
        return cls(
            hidden_size=hidden,
            num_layers=_required(config, "num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            intermediate_size=_required(config, "intermediate_size"),
            vocab_size=_required(config, "vocab_size"),
            rope_theta=_rope_theta(config),
            rms_norm_eps=_required(config, "rms_norm_eps"),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            max_positions=_required(config, "max_position_embeddings") if max_positions is None else max_positions,
        )


def _required(config: Mapping[str, Any], field: str) -> Any:
    if config.get(field) is None:
        raise ExportError(
            f"text config: {field} is missing: give the config with its defaults filled in, as to_dict() gives it"
        )
    return config[field]


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    for field, valid in (("model_type", MODEL_TYPES), ("hidden_act", ("silu",))):
        if _required(config, field) not in valid:
            raise ExportError(f"text config: {field}={config[field]!r} is not supported: {choices(valid)}")
    # A version-4 config sets use_sliding_window alone: layers from max_window_layers on are the windowed ones.
    windowed = config.get("use_sliding_window") and config.get("max_window_layers", 0) < config["num_hidden_layers"]
    if windowed or set(config.get("layer_types") or ()) - {"full_attention"}:
        field = "layer_types" if config.get("layer_types") else "use_sliding_window"
        raise ExportError(
            f"text config: {field} puts sliding windows to use, which is not supported: "
            "choose a checkpoint with full attention in every layer"
        )


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The rotary base, from ``rope_parameters`` (transformers 5) or from ``rope_theta`` (transformers 4)."""
    # No default here: a reader that assumes 10000 turns a checkpoint of 1e6 into a subtly wrong model.
    for field in ("rope_parameters", "rope_scaling"):
        options = {key: value for key, value in (config.get(field) or {}).items() if value is not None}
        kind = options.pop("rope_type", options.pop("type", "default"))
        if kind != "default":
            raise ExportError(f"text config: {field}.rope_type={kind!r} is not supported: only 'default' is")
        unknown = sorted(set(options) - {"type", "rope_theta", "partial_rotary_factor"})
        if unknown or options.get("partial_rotary_factor", 1.0) != 1.0:
            raise ExportError(
                f"text config: {field}.{(unknown or ['partial_rotary_factor'])[0]} is not supported: "
                "only plain rotary embeddings of one position per token are"
            )
    theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta")
    if not theta:
        raise ExportError(
            "text config: rope_parameters.rope_theta and rope_theta are both missing: "
            "write the base the model was trained with into config.json"
        )
    return float(theta)
