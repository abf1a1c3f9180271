"""Model recipes: what `edgevtc export NAME` makes of a checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from edgevtc.catalogue.shelf import Shelf
from edgevtc.errors import ConfigError, choices
from edgevtc.methods import POSITION_MODES, builtin_methods, method_names

__all__ = ["VALUES", "ModelRecipe", "PromptRecipe", "model_names", "model_recipe"]

#: Key → its valid values, as the exporter has them, which is not installed on every machine that lists recipes.
VALUES: dict[str, tuple[str, ...]] = {
    "family": ("llava_onevision",),
    "weight_formats": ("fp32", "int8", "w8a8", "int4"),
    "positions": POSITION_MODES,
    "saliency": ("siglip_head", "siglip_last_mean"),
    "frame_features": ("siglip_head", "mean"),
    "dtype": ("float32", "float16"),
    "encoder_format": ("float", "w8a8"),
}


@dataclass(frozen=True)
class PromptRecipe:
    """What a model can be asked.

    Attributes:
        examples: Questions it is known to answer; shown where a question has words it does not know.
    """

    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRecipe:
    """One file of `export/`; its README explains every field.

    Attributes:
        name: As in ``edgevtc export NAME``.
        family: ``model_type`` of the checkpoint's config.json.
        source: ``embedded``, or a repository of the Hugging Face Hub.
        revision: Of the source; of ``embedded``, the folder of the checkpoint.
        licence: Of the weights, by SPDX identifier.
        num_frames: T, frames of a clip.
        frames_per_call: Most frames of one encoder call.
        methods: Compression methods; the first is the bundle's default.
        retention_ratios: Shares of the T·N tokens to keep, each in (0, 1].
        weight_formats: Of the decoder; the first is the bundle's default.
        positions: Position mode for all methods; each method's own where None.
        saliency: Source of saliency; the exporter's default where None.
        frame_features: Source of frame descriptors; the exporter's default where None.
        fused: Whether to write the graphs from frames to tokens that engines are built from.
        dtype: Of the vision graphs' big products; the exporter's default where None.
        encoder_format: Of the encoder's products; the exporter's default where None.
        siglip_head: Repository of the SigLIP checkpoint that has the tower's pooling head.
        max_positions: Longest prompt and answer, in positions; the exporter's default where None.
        parameters: Method → hyper-parameter → value, where not the paper's.
        prompt: What the model can be asked.

    Raises:
        ConfigError: A value is out of range or unknown.
    """

    name: str
    family: str
    source: str
    revision: str
    licence: str
    num_frames: int
    frames_per_call: int
    methods: tuple[str, ...]
    retention_ratios: tuple[float, ...]
    weight_formats: tuple[str, ...]
    positions: str | None = None
    saliency: str | None = None
    frame_features: str | None = None
    siglip_head: str | None = None
    fused: bool = True
    dtype: str | None = None
    encoder_format: str | None = None
    max_positions: int | None = None
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompt: PromptRecipe = field(default_factory=PromptRecipe)

    def __post_init__(self) -> None:
        for name in ("methods", "retention_ratios", "weight_formats"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty: give at least one")
        for method in self.methods:
            if method not in (known := method_names()):
                raise ConfigError(f"methods: unknown method {method!r}: {choices(known)}")
        for method, values in self.parameters.items():
            if method not in self.methods:
                raise ConfigError(f"parameters: {method!r} is none of the recipe's methods: {choices(self.methods)}")
            # A method of another package says what it takes when it is loaded.
            if method in (builtin := builtin_methods()):
                builtin[method].configure(1.0, values)
        for ratio in self.retention_ratios:
            if not 0 < ratio <= 1:
                raise ConfigError(f"retention_ratios: {ratio!r} is not valid: give numbers above 0 and up to 1")
        if self.num_frames < 1:
            raise ConfigError(f"num_frames: {self.num_frames} is not valid: give 1 or more")
        if not 1 <= self.frames_per_call <= self.num_frames:
            raise ConfigError(f"frames_per_call: {self.frames_per_call} is not valid: give 1 to {self.num_frames}")
        for name, valid in VALUES.items():
            given = getattr(self, name)
            for value in given if isinstance(given, tuple) else (given,):
                if value is not None and value not in valid:
                    raise ConfigError(f"{name}: {value!r} is not valid: {choices(valid)}")
        if self.max_positions is not None and self.max_positions < 1:
            raise ConfigError(f"max_positions: {self.max_positions} is not valid: give 1 or more")


SHELF = Shelf(ModelRecipe, "model recipe", "edgevtc.catalogue.models", "export", "edgevtc list models")


def model_names() -> list[str]:
    """Names of the catalogue's recipes."""
    return SHELF.names()


def model_recipe(name_or_path: str | os.PathLike[str]) -> ModelRecipe:
    """A recipe by its name in the catalogue, or from a .toml file of one's own.

    Raises:
        ConfigError: No such name or file, or the file is not valid; the message names file and field.

    Example:
        >>> model_recipe("embedded").num_frames
        16
    """
    return SHELF.read(name_or_path)
