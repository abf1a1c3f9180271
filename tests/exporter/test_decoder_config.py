from __future__ import annotations

from typing import Any

import pytest

from edgevtc.errors import ExportError
from edgevtc.exporter.decoder_config import DecoderConfig

pytestmark = pytest.mark.export

# As transformers 5 gives it.
NEW: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 192,
    "intermediate_size": 512,
    "layer_types": ["full_attention"] * 6,
    "max_position_embeddings": 2048,
    "max_window_layers": 28,
    "num_attention_heads": 6,
    "num_hidden_layers": 6,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 75,
}
# As transformers 4 wrote it.
OLD = {key: value for key, value in NEW.items() if key not in ("rope_parameters", "layer_types")} | {
    "rope_theta": 1e6,
    "rope_scaling": None,
    "sliding_window": 4096,
}


@pytest.mark.parametrize("config", [NEW, OLD], ids=["transformers-5", "transformers-4"])
def test_both_layouts_read_the_same(config: dict[str, Any]) -> None:
    assert DecoderConfig.from_text_config(config) == DecoderConfig(
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


def test_options_and_defaults() -> None:
    config = DecoderConfig.from_text_config(NEW | {"head_dim": 64, "num_key_value_heads": None}, max_positions=700)
    assert (config.head_dim, config.num_kv_heads, config.max_positions) == (64, 6, 700)


def test_windows_that_no_layer_uses_are_no_obstacle() -> None:
    assert DecoderConfig.from_text_config(OLD | {"use_sliding_window": True, "max_window_layers": 6}).num_layers == 6


@pytest.mark.parametrize(
    ("config", "field"),
    [
        pytest.param(NEW | {"rope_parameters": None}, "rope_theta", id="no-rope-theta"),
        pytest.param(NEW | {"rope_parameters": {"rope_type": "default"}}, "rope_theta", id="no-rope-theta-within"),
        pytest.param(
            NEW | {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}},
            "rope_parameters.rope_type='yarn'",
            id="yarn",
        ),
        pytest.param(
            OLD | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.rope_type='linear'", id="linear"
        ),
        pytest.param(
            NEW | {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]}},
            "rope_parameters.mrope_section",
            id="mrope",
        ),
        pytest.param(
            NEW | {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor",
            id="partial-rotary",
        ),
        pytest.param(
            NEW | {"layer_types": ["full_attention", "sliding_attention"] * 3}, "layer_types", id="sliding-layers"
        ),
        pytest.param(
            OLD | {"use_sliding_window": True, "max_window_layers": 3}, "use_sliding_window", id="sliding-window"
        ),
        pytest.param(NEW | {"hidden_act": "gelu"}, "hidden_act='gelu'", id="activation"),
        pytest.param(NEW | {"model_type": "llama"}, "model_type='llama'", id="family"),
        pytest.param(NEW | {"rms_norm_eps": None}, "rms_norm_eps", id="missing"),
        pytest.param(NEW | {"num_key_value_heads": 4}, "num_key_value_heads=4", id="heads-and-kv-heads"),
        pytest.param(NEW | {"head_dim": 33}, "head_dim=33", id="odd-head-dim"),
        pytest.param(NEW | {"vocab_size": 0}, "vocab_size=0", id="no-vocabulary"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ExportError) as error:
        DecoderConfig.from_text_config(config)
    assert field in str(error.value)
    assert "\n" not in str(error.value)
