"""Slots and positions of a prompt with a video in it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevtc.decoder.prompt import VisualSpan, assemble
from edgevtc.errors import BundleError

VIDEO = 99


def embed(ids):
    return np.array([[i, 0] for i in ids], np.float32).reshape(-1, 2)


def span(offsets, length, key="clip"):
    offsets = np.array(offsets, np.int64)
    return VisualSpan(key, np.stack([-1 - offsets, np.ones(len(offsets))], 1).astype(np.float32), offsets, length)


TEXT = st.lists(st.integers(0, 50), max_size=6)


@given(TEXT, TEXT, st.sets(st.integers(0, 40), min_size=1))
def test_text_keeps_the_positions_it_has_without_compression(head, tail, kept):
    rows = assemble([*head, VIDEO, *tail], VIDEO, span(sorted(kept), 41), embed)
    assert len(rows.keys) == len(rows.embeddings) == len(rows.positions) == len(head) + len(kept) + len(tail)
    assert np.all(np.diff(rows.positions) > 0)
    assert rows.positions[: len(head)].tolist() == list(range(len(head)))
    assert (rows.positions[len(head) : len(head) + len(kept)] - len(head)).tolist() == sorted(kept)
    assert rows.positions[len(head) + len(kept) :].tolist() == [len(head) + 41 + i for i in range(len(tail))]
    assert rows.next_position == len(head) + 41 + len(tail)
    assert rows.embeddings[len(head) : len(head) + len(kept), 0].tolist() == [-1 - n for n in sorted(kept)]


def test_the_same_video_has_the_same_keys_and_another_has_not():
    first, second, other = (
        assemble([1, VIDEO, *tail], VIDEO, span([0, 3], 4, key), embed).keys
        for tail, key in (([5], "a"), ([6], "a"), ([5], "b"))
    )
    assert first[:3] == second[:3] and first[3] != second[3]
    assert first[0] == other[0] and first[1] != other[1]


@pytest.mark.parametrize("ids", [[1, 2], [VIDEO, 1, VIDEO]])
def test_the_video_stands_exactly_once(ids):
    with pytest.raises(BundleError, match="instead of once"):
        assemble(ids, VIDEO, span([0], 1), embed)
