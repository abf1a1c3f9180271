"""Text on both sides of the decoder: tokenizer, sandboxed chat template, streaming detokenizer."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from edgevtc.bundle import read_text
from edgevtc.errors import BundleError, ConfigError

__all__ = ["ChatTemplate", "Message", "TextCodec", "question_text"]

#: One turn: {"role": "user" | "assistant", "content": [{"type": "video"}, {"type": "text", "text": …}]}.
Message = dict[str, Any]


class GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}``, as transformers' templates mark an assistant turn; printed as it is."""

    tags = {"generation"}  # noqa: RUF012 - the attribute is jinja2's

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The nodes inside the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A checkpoint's chat template, rendered in a sandbox: it comes from strangers and must not reach Python.

    Args:
        source: Jinja source.

    Raises:
        BundleError: The source is no valid template.
    """

    def __init__(self, source: str) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationBlock]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise BundleError(f"the chat template is not valid Jinja ({error}): mend chat_template.jinja") from None

    @classmethod
    def read(cls, path: Path) -> ChatTemplate:
        """The template in `chat_template.jinja`.

        Raises:
            BundleError: It is no UTF-8, or no valid template.
        """
        return cls(read_text(path))

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for these turns, ending where the assistant's answer begins.

        Raises:
            BundleError: The template failed, refused the turns, or tried what the sandbox forbids.
        """
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True)
        except Exception as error:  # a template can fail in any way Python can
            raise BundleError(f"the chat template failed ({type(error).__name__}: {error})") from None


def refuse(message: str) -> None:
    """What templates call to reject a conversation."""
    raise jinja2.TemplateError(message)


class TextCodec:
    """A tokenizer with what a runner asks of it.

    Args:
        path: `tokenizer.json`.

    Raises:
        BundleError: The file is missing or no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"{path} is no tokenizer ({error}): export the bundle again") from None
        self._unknown = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "<unk>")

    def encode(self, text: str) -> list[int]:
        """Token ids of text in which special tokens are written out."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def token_id(self, token: str) -> int:
        """Id of one token.

        Raises:
            BundleError: The vocabulary lacks it.
        """
        value = self._tokenizer.token_to_id(token)
        if value is None:
            raise BundleError(f"the tokenizer has no token {token!r}: export the bundle again")
        return value

    def unknown_words(self, text: str) -> list[str]:
        """The words of ``text`` outside the vocabulary, in order; most vocabularies have none."""
        if self._unknown is None:
            return []
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = [span for span, token in zip(encoding.offsets, encoding.ids, strict=True) if token == self._unknown]
        return list(dict.fromkeys(text[start:end] for start, end in spans))

    def stream(self, token_ids: Iterable[int]) -> Iterator[str]:
        """Pieces of text as tokens arrive; a piece comes when its characters are complete."""
        stream = DecodeStream(skip_special_tokens=True)
        for token in token_ids:
            if piece := stream.step(self._tokenizer, token):
                yield piece


def question_text(question: str) -> str:
    """The question as it goes into the prompt.

    Raises:
        ConfigError: It is empty.
    """
    text = question.strip()
    if not text:
        raise ConfigError("the question is empty: ask something about the video")
    return text
