"""Reading a checkpoint's tensors one by one, so that no model has to fit in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgevtc.errors import ExportError

__all__ = ["Checkpoint", "DecoderWeights", "Weights", "read_json"]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """The object a JSON file holds.

    Raises:
        ExportError: The file is missing, or does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path.parent} has no {path.name}: give the folder of a transformers checkpoint") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error}): copy or download the checkpoint again") from None
    if not isinstance(value, dict):
        raise ExportError(f"{path} holds no JSON object: copy or download the checkpoint again")
    return value


class Checkpoint:
    """The safetensors files of a model, under the names this project uses for its tensors.

    Args:
        path: A checkpoint folder (one file, or shards with their index) or one ``.safetensors`` file.
        rename: Stored name → name to use; layouts differ between versions of transformers.

    Raises:
        ExportError: There are no safetensors files, one is damaged, or one is named outside the folder.
    """

    def __init__(self, path: Path, rename: Callable[[str], str] = lambda name: name) -> None:
        self.path = path
        self._open: dict[Path, Any] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        for stored, file in self._stored_names():
            self._places[rename(stored)] = (file, stored)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def size(self, name: str) -> int:
        """Numbers in a tensor, by its file's header."""
        file, stored = self._places[name]
        return math.prod(self._file(file).get_slice(stored).get_shape())

    def tensor(self, name: str, *shape: int) -> Tensor:
        """Read one tensor as float32.

        Raises:
            ExportError: It is missing, is not floating point, or has another shape than the one given.
        """
        if name not in self._places:
            raise ExportError(f"{self.path} has no tensor {name}: the checkpoint is incomplete or of another model")
        file, stored = self._places[name]
        try:
            value = self._file(file).get_tensor(stored)
        except SafetensorError as error:
            raise ExportError(f"{file} is damaged ({error}): copy or download it again") from None
        if not value.is_floating_point():
            raise ExportError(f"tensor {name} is {value.dtype}: quantized checkpoints are not read, give the original")
        if shape and tuple(value.shape) != shape:
            raise ExportError(f"tensor {name} has shape {tuple(value.shape)}, config.json asks for {shape}")
        return value.float()

    def _stored_names(self) -> Iterator[tuple[str, Path]]:
        if self.path.is_file() or (self.path / SINGLE_FILE).is_file():
            file = self.path if self.path.is_file() else self.path / SINGLE_FILE
            yield from ((name, file) for name in self._file(file).keys())  # noqa: SIM118 - not a dict
        elif (index := self.path / INDEX_FILE).is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ExportError(f"{index} has no weight_map: copy or download the checkpoint again")
            for name, file_name in weight_map.items():
                if Path(file_name).name != file_name:
                    raise ExportError(f"{index} names {file_name!r}, which is outside the checkpoint's folder")
                if not (file := self.path / file_name).is_file():
                    raise ExportError(f"{self.path} lacks {file_name}, which its index names: download it again")
                yield name, file
        elif any(True for pattern in PICKLED for _ in self.path.glob(pattern)):
            raise ExportError(
                f"{self.path} holds pickled weights only, and unpickling runs code: convert them to safetensors "
                "with save_pretrained, or download the safetensors revision"
            )
        else:
            raise ExportError(f"{self.path} has neither {SINGLE_FILE} nor {INDEX_FILE}: give a safetensors checkpoint")

    def _file(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ExportError(f"{file} is not a safetensors file ({error}): copy or download it again") from None
        return self._open[file]


class Weights:
    """A checkpoint seen from one prefix: ``weights("fc1.bias", 512)`` reads a tensor and checks its shape."""

    def __init__(self, checkpoint: Checkpoint, prefix: str = "") -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix

    def __call__(self, name: str, *shape: int) -> Tensor:
        return self.checkpoint.tensor(self.prefix + name, *shape)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.checkpoint

    def under(self, prefix: str) -> Weights:
        """The same checkpoint, one level deeper."""
        return Weights(self.checkpoint, self.prefix + prefix)


class DecoderWeights(Mapping[str, NDArray[np.float32]]):
    """The language model's tensors by their names inside it; each look-up reads one from disk and keeps nothing.

    Example:
        >>> weights["layers.0.self_attn.q_proj.weight"].shape
        (896, 896)
    """

    def __init__(self, checkpoint: Checkpoint, prefix: str, leave_out: frozenset[str] = frozenset()) -> None:
        names = (name.removeprefix(prefix) for name in checkpoint if name.startswith(prefix))
        self._names = dict.fromkeys(name for name in names if name not in leave_out)
        self._weights = Weights(checkpoint, prefix)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._names:
            raise KeyError(name)
        return self._weights(name).numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
