"""What an adapter tells the exporter about a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

__all__ = [
    "FRAME_FEATURE_SOURCES",
    "SALIENCY_SOURCES",
    "Geometry",
    "ModelAdapter",
    "Preprocessing",
    "Prompt",
    "Vision",
    "VisionSize",
]

#: Where saliency comes from: SigLIP's attention-pooling head, or the mean attention received in the tower's last layer.
SALIENCY_SOURCES = ("siglip_head", "siglip_last_mean")

#: Where a frame's descriptor comes from: the pooling head's output, or the mean of the frame's tokens.
FRAME_FEATURE_SOURCES = ("siglip_head", "mean")


@dataclass(frozen=True)
class Geometry:
    """Sizes of the vision side.

    Attributes:
        num_frames: T the family was trained with; the default of an export.
        image_height: Pixels of a frame as the graph takes it.
        image_width: Pixels of a frame as the graph takes it.
        grid_height: Rows of tokens in a frame, after pooling.
        grid_width: Tokens in a row, after pooling.
        hidden_size: D, width of a token and of the language model.
    """

    num_frames: int
    image_height: int
    image_width: int
    grid_height: int
    grid_width: int
    hidden_size: int

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return self.grid_height * self.grid_width


@dataclass(frozen=True)
class Preprocessing:
    """What the model's own processor does to a frame. The resize happens outside the graph, the rest inside.

    Attributes:
        height: Pixels after the resize.
        width: Pixels after the resize.
        resample: Filter of the resize, by Pillow's name in lower case.
        mean: Per channel, of values scaled to 0…1.
        std: Per channel, of values scaled to 0…1.
    """

    height: int
    width: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Prompt:
    """How a video stands in the prompt.

    Attributes:
        video_token: Text of the placeholder in the rendered chat template.
        video_token_id: Its id.
        video_newline: Whether one `image_newline` embedding follows the visual tokens.
    """

    video_token: str
    video_token_id: int
    video_newline: bool


@dataclass(frozen=True)
class VisionSize:
    """What a vision part weighs, before any of it is read.

    Attributes:
        parameters: Numbers it reads from the checkpoint.
        layers: Transformer layers in use.
        activations: Largest number of intermediate values that live at once, for one frame.
    """

    parameters: int
    layers: int
    activations: int


class Vision(nn.Module, ABC):
    """A vision tower with its projector and pooling, written for export: static shapes, preprocessing included.

    Attributes:
        geometry: Sizes of the input and of the tokens.
        outputs: Names of the graph's outputs in order, from :data:`edgevtc.methods.NEEDS`.
    """

    geometry: Geometry
    outputs: tuple[str, ...]

    @abstractmethod
    def features(self, frames: Tensor) -> dict[str, Tensor]:
        """Encode frames.

        Args:
            frames: [C, H, W, 3] uint8 as decoded and resized, or float32 of the same values.

        Returns:
            The tensors named by `outputs`: frame_tokens [C, N, D]; saliency [C, N] float32; frame_features [C, Dg]
            float32; keys [C, N, Dk] float32.
        """

    def feature_shapes(self, num_frames: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for a clip, found without computing them."""
        geometry = self.geometry
        with FakeTensorMode(allow_non_fake_inputs=True):
            frames = torch.empty(num_frames, geometry.image_height, geometry.image_width, 3, dtype=torch.uint8)
            return {name: tuple(value.shape) for name, value in self.features(frames).items()}

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Graph form of :meth:`features`: the tensors in the order of `outputs`."""
        features = self.features(frames)
        return tuple(features[name] for name in self.outputs)


class ModelAdapter(ABC):
    """One checkpoint of a model family, opened for export.

    Opening reads config.json and the names of the tensors; weights are read when they are asked for.

    Attributes:
        model_type: The family, `model_type` of config.json.
        folder: The checkpoint.
        geometry: Sizes of the vision side.
        preprocessing: What the model's processor does to a frame.
        text_config: The language model's configuration, with transformers' defaults filled in.
    """

    model_type: ClassVar[str]
    folder: Path
    geometry: Geometry
    preprocessing: Preprocessing
    text_config: dict[str, Any]

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @property
    @abstractmethod
    def prompt(self) -> Prompt:
        """How a video stands in the prompt.

        Raises:
            ExportError: The checkpoint's tokenizer is missing or lacks the video token.
        """

    @abstractmethod
    def vision(
        self,
        needs: Sequence[str] = ("frame_tokens", "saliency", "frame_features"),
        *,
        saliency: str = "siglip_head",
        frame_features: str = "siglip_head",
        siglip_head: Path | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Vision:
        """Load the vision part.

        Args:
            needs: Outputs to give, from :data:`edgevtc.methods.NEEDS`: those of the methods to be exported.
            saliency: One of :data:`SALIENCY_SOURCES`.
            frame_features: One of :data:`FRAME_FEATURE_SOURCES`.
            siglip_head: Folder or safetensors file to take the pooling head from, where the checkpoint has none.
            dtype: Of the big matrix products and of the tokens; all else stays float32.

        Raises:
            ConfigError: A need or a source is unknown.
            ExportError: A needed tensor is missing or has another shape than config.json says.
        """

    @abstractmethod
    def require_sources(
        self, needs: Sequence[str], *, saliency: str, frame_features: str, siglip_head: Path | None
    ) -> None:
        """Raise as :meth:`vision` would where an output has no source; reads headers alone.

        Raises:
            ExportError: A pooling head is needed and there is none, or the one given is none or is of another width.
        """

    @abstractmethod
    def vision_size(self) -> VisionSize:
        """Size of the vision part without a pooling head, from the configuration and the files' headers."""

    @abstractmethod
    def decoder_weights(self) -> Mapping[str, NDArray[np.float32]]:
        """The language model's tensors by name, without prefix, each read when it is looked up.

        Names are transformers': "embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "norm.weight",
        "lm_head.weight"; the last is left out where the model ties it to the embeddings.
        """

    @abstractmethod
    def special_embeddings(self) -> dict[str, NDArray[np.float32]]:
        """Name → [D] embedding that stands for no token of the vocabulary."""
