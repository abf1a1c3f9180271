"""The KV cache: buffers the backend allocates once, and the number of slots in use."""

from __future__ import annotations

from edgevtc.backends import Backend, Session, Tensor
from edgevtc.errors import ConfigError

__all__ = ["KVCache"]


class KVCache:
    """Keys and values of all layers in preallocated buffers.

    A *slot* is a row of the buffers; the *position* RoPE sees is another number and not kept here. Rewinding is
    setting :attr:`length`: rows beyond it are never read.

    Args:
        backend: Allocates the buffers.
        num_layers: Decoder layers.
        num_kv_heads: KV heads of a layer.
        head_dim: Width of a head.
        capacity: Slots.
        dtype: Element type, float32 or float16.
    """

    def __init__(
        self, backend: Backend, num_layers: int, num_kv_heads: int, head_dim: int, capacity: int, dtype: str = "float32"
    ) -> None:
        self.capacity = capacity
        shape = (1, num_kv_heads, capacity, head_dim)
        self._tensors: dict[str, Tensor] = {
            f"{layer}.{side}": backend.empty(shape, dtype) for layer in range(num_layers) for side in ("key", "value")
        }
        self._length = 0

    @property
    def length(self) -> int:
        """Slots in use."""
        return self._length

    @length.setter
    def length(self, value: int) -> None:
        if not 0 <= value <= self.capacity:
            raise ConfigError(f"a KV cache of {self.capacity} slots cannot hold {value}: ask for fewer tokens")
        self._length = value

    def bind(self, session: Session) -> None:
        """Bind every buffer as past and as present: the graph writes new rows in place."""
        for name, tensor in self._tensors.items():
            session.bind(f"past_key_values.{name}", tensor)
            session.bind(f"present.{name}", tensor)
