"""The decoder at run time. It knows embeddings, positions and token ids; text and video are the caller's."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from edgevtc.backends import Backend, Session
from edgevtc.bundle import DecoderEntry
from edgevtc.decoder.cache import KVCache
from edgevtc.decoder.sampling import Sampler
from edgevtc.errors import ConfigError

__all__ = ["Generator"]

#: Rows of one prefill call. Longer ones cost memory and, on CPUs, time.
PREFILL_CHUNK = 512


class Generator:
    """Feeds a decoder graph and draws tokens from it.

    Args:
        backend: Where the graph runs.
        session: The decoder graph.
        entry: The bundle's description of the decoder.
        embeddings: Token embeddings [vocabulary, hidden].

    Attributes:
        cache: KV cache of the sequence; rewind it by setting its length.
    """

    def __init__(self, backend: Backend, session: Session, entry: DecoderEntry, embeddings: np.ndarray) -> None:
        self._backend, self._session, self._entry, self._embeddings = backend, session, entry, embeddings
        self._dtype = session.inputs["inputs_embeds"].dtype
        self._logits = backend.empty((1, 1, entry.vocab_size), session.outputs["logits"].dtype)
        session.bind("logits", self._logits)
        self.cache = self._allocate(0)

    def reserve(self, slots: int) -> None:
        """Make room for a sequence of this many slots; what the cache holds is forgotten if it has to grow."""
        if slots > self.cache.capacity:
            self.cache = self._allocate(slots)

    def embed(self, token_ids: Collection[int]) -> np.ndarray:
        """Embeddings [len(token_ids), hidden] of text tokens."""
        return self._embeddings[np.fromiter(token_ids, np.int64, len(token_ids))].astype(self._dtype)

    def extend(self, embeddings: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Append rows to the sequence.

        Args:
            embeddings: [S, hidden], S ≥ 1.
            positions: [S] int64 ascending RoPE positions; gaps are allowed.

        Returns:
            Logits [vocabulary] float32 after the last row.

        Raises:
            ConfigError: A position lies beyond the model's rotary table, or the cache is full.
        """
        if positions[-1] >= self._entry.max_positions:
            raise ConfigError(
                f"the prompt reaches position {positions[-1]}, this bundle's decoder has {self._entry.max_positions}: "
                "ask a shorter question or fewer tokens"
            )
        for start in range(0, len(positions), PREFILL_CHUNK):
            self._step(embeddings[start : start + PREFILL_CHUNK], positions[start : start + PREFILL_CHUNK])
        return self._logits.numpy().reshape(-1).astype(np.float32)

    def generate(
        self, logits: np.ndarray, position: int, sampler: Sampler, stop_ids: Collection[int], max_tokens: int
    ) -> Iterator[int]:
        """Draw tokens one by one until a stop token, which is not yielded, or ``max_tokens``.

        Args:
            logits: [vocabulary], what `extend` returned.
            position: RoPE position of the first new token.
            sampler: Draws a token from logits.
            stop_ids: Ids that end the answer.
            max_tokens: Most tokens to yield.
        """
        for count in range(max_tokens):
            token = sampler(logits)
            if token in stop_ids:
                return
            yield token
            if count + 1 < max_tokens:
                logits = self.extend(self.embed([token]), np.array([position + count], np.int64))

    def _step(self, embeddings: np.ndarray, positions: np.ndarray) -> None:
        """One run of the graph over at most PREFILL_CHUNK rows."""
        backend, session, cache = self._backend, self._session, self.cache
        total = cache.length + len(positions)
        if total > cache.capacity:
            raise ConfigError(f"the KV cache holds {cache.capacity} slots, {total} are needed: reserve more first")
        session.bind("inputs_embeds", backend.tensor(embeddings[None].astype(self._dtype, copy=False)))
        session.bind("position_ids", backend.tensor(positions[None].astype(np.int64, copy=False)))
        session.bind("seqlens_k", backend.tensor(np.array([total - 1], np.int32)))
        session.bind("total_sequence_length", backend.tensor(np.array(total, np.int32)))
        session.run()
        cache.length = total

    def _allocate(self, slots: int) -> KVCache:
        """A cache of at least ``slots`` slots, bound to the graph."""
        entry = self._entry
        capacity = max(PREFILL_CHUNK, -(-slots // PREFILL_CHUNK) * PREFILL_CHUNK)
        cache = KVCache(self._backend, entry.num_layers, entry.num_kv_heads, entry.head_dim, capacity, self._dtype.name)
        cache.bind(self._session)
        return cache
