"""The decoder at run time. It knows embeddings, positions and token ids; text and video are the caller's."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence

import numpy as np

from edgevtc.backends import Backend, Session
from edgevtc.bundle import DecoderEntry
from edgevtc.decoder.cache import KVCache
from edgevtc.decoder.prompt import Rows
from edgevtc.decoder.sampling import Sampler
from edgevtc.errors import ConfigError

__all__ = ["Generator"]

#: Rows of one prefill call. Longer ones cost memory and, on CPUs, time.
PREFILL_CHUNK = 512


class Generator:
    """Feeds a decoder graph and draws tokens from it. Rows that its cache holds already are not computed again.

    Args:
        backend: Where the graph runs.
        session: The decoder graph.
        entry: The bundle's description of the decoder.
        embeddings: Token embeddings [vocabulary, hidden].
    """

    def __init__(self, backend: Backend, session: Session, entry: DecoderEntry, embeddings: np.ndarray) -> None:
        self._backend, self._session, self._entry, self._embeddings = backend, session, entry, embeddings
        self._dtype = session.inputs["inputs_embeds"].dtype
        self._logits = backend.empty((1, 1, entry.vocab_size), session.outputs["logits"].dtype)
        session.bind("logits", self._logits)
        self._allocate(0)

    def embed(self, token_ids: Sequence[int]) -> np.ndarray:
        """Embeddings [len(token_ids), hidden] of text tokens."""
        return self._embeddings[np.asarray(token_ids, np.int64)].astype(self._dtype)

    def prefill(self, rows: Rows, max_tokens: int) -> tuple[np.ndarray, int]:
        """Bring a prompt into the cache and make room for its answer.

        Args:
            rows: The whole prompt.
            max_tokens: Most tokens of the answer.

        Returns:
            Logits [vocabulary] float32 after the last row, and the number of rows that had to be computed.

        Raises:
            ConfigError: A position lies beyond the model's rotary table.
        """
        last = rows.next_position + max_tokens - 1
        if last > self._entry.max_positions:
            raise ConfigError(
                f"prompt and answer reach position {last}, this bundle's decoder has {self._entry.max_positions}: "
                "ask a shorter question or fewer tokens"
            )
        slots = len(rows.keys) + max_tokens
        if slots > self._cache.capacity:
            self._allocate(slots)
        shared = 0  # the last row is always computed: its logits are wanted
        while shared < min(len(self._held), len(rows.keys) - 1) and self._held[shared] == rows.keys[shared]:
            shared += 1
        self._cache.length = shared
        del self._held[shared:]
        logits = self._extend(rows.keys[shared:], rows.embeddings[shared:], rows.positions[shared:])
        return logits, len(rows.keys) - shared

    def generate(
        self, logits: np.ndarray, position: int, sampler: Sampler, stop_ids: Collection[int], max_tokens: int
    ) -> Iterator[int]:
        """Draw tokens one by one until a stop token, which is not yielded, or ``max_tokens``.

        Args:
            logits: [vocabulary], what `prefill` returned.
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
                logits = self._extend([token], self.embed([token]), np.array([position + count]))

    def _extend(self, keys: Sequence[Hashable], embeddings: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Append rows, a chunk a run; returns the logits after the last."""
        for start in range(0, len(keys), PREFILL_CHUNK):
            self._step(embeddings[start : start + PREFILL_CHUNK], positions[start : start + PREFILL_CHUNK])
        self._held += keys
        return self._logits.numpy().reshape(-1).astype(np.float32)

    def _step(self, embeddings: np.ndarray, positions: np.ndarray) -> None:
        """One run of the graph over at most PREFILL_CHUNK rows."""
        backend, session = self._backend, self._session
        total = self._cache.length + len(positions)
        session.bind("inputs_embeds", backend.tensor(embeddings[None].astype(self._dtype, copy=False)))
        session.bind("position_ids", backend.tensor(positions[None].astype(np.int64, copy=False)))
        session.bind("seqlens_k", backend.tensor(np.array([total - 1], np.int32)))
        session.bind("total_sequence_length", backend.tensor(np.array(total, np.int32)))
        session.run()
        self._cache.length = total

    def _allocate(self, slots: int) -> None:
        """An empty cache of at least ``slots`` slots, bound to the graph."""
        entry = self._entry
        capacity = max(1, -(-slots // PREFILL_CHUNK)) * PREFILL_CHUNK
        self._cache = KVCache(
            self._backend, entry.num_layers, entry.num_kv_heads, entry.head_dim, capacity, self._dtype.name
        )
        self._cache.bind(self._session)
        self._held: list[Hashable] = []
