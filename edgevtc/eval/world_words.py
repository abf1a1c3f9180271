"""The words of the synthetic world: attribute names and the vocabulary (word → token id).

The vocabulary only ever grows at its end, so that trained word embeddings keep their ids.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgevtc.errors import ConfigError

__all__ = [
    "ANSWER",
    "BOS",
    "CHANGES",
    "COLORS",
    "DIGITS",
    "EOS",
    "HEADINGS",
    "IMAGE",
    "PAD",
    "QUESTION",
    "SHAPES",
    "SIZES",
    "UNKNOWN",
    "VIDEO",
    "VOCABULARY",
    "VOCABULARY_ROWS",
    "decode",
    "encode",
]

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "ring")
HEADINGS = ("still", "left", "right", "up", "down")
SIZES = ("small", "big")
CHANGES = ("color", "size", "nothing")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_SPECIAL = ("<pad>", "<bos>", "<eos>", "<video>", "<q>", "<a>", "<unk>")
_FIRST = (
    "yes no color size nothing top bottom start middle end what is the shape object which way does move how many "
    "objects are there came first or was flash of appeared last a changed where at when did happen in video before "
    "big small"
)
_SECOND = (
    "zero five six seven eight nine not above below sign number digit second third fastest moved moving moves quickest "
    "flashes flashed times often it after between happened them changes anything see you can tell me name do we one's "
    "seen kind has have that this on read shows written left's leaves disappeared gone beginning direction go goes "
    "earlier earliest newest latest time final position side next to count total moment during while begin began had "
    "any ever big's occur occurred lightning new large and part change were thing things most "
    "cannot"
)
#: Word → token id.
VOCABULARY: dict[str, int] = {
    word: index
    for index, word in enumerate(
        dict.fromkeys(
            (*_SPECIAL, *COLORS, *SHAPES, *HEADINGS, *DIGITS[1:5], *_FIRST.split(), *_SECOND.split()),
        )
    )
}
#: Rows of the embedding table: room for later words; the last row is the image placeholder.
VOCABULARY_ROWS = 192
PAD, BOS, EOS, VIDEO, QUESTION, ANSWER, UNKNOWN = range(7)
IMAGE = VOCABULARY_ROWS - 1

_WORDS = {index: word for word, index in VOCABULARY.items()}


def encode(text: str) -> list[int]:
    """Token ids of words separated by spaces.

    Raises:
        ConfigError: A word is not in the vocabulary.
    """
    unknown = [word for word in text.split() if word not in VOCABULARY]
    if unknown:
        raise ConfigError(f"the world does not know the words {unknown}: reword with those of VOCABULARY")
    return [VOCABULARY[word] for word in text.split()]


def decode(ids: Iterable[int]) -> str:
    """Words of token ids, special tokens left out."""
    return " ".join(_WORDS[index] for index in ids if index in _WORDS and index > UNKNOWN)
