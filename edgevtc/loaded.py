"""A bundle in memory: its graphs on a backend, its tokenizer and its chat template."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from edgevtc.backends import Backend, create_backend
from edgevtc.bundle import Bundle, read_text
from edgevtc.decoder.generator import Generator
from edgevtc.decoder.prompt import Rows, VisualSpan, assemble
from edgevtc.decoder.text import ChatTemplate, Message, TextCodec
from edgevtc.domain import Domain
from edgevtc.errors import BundleError, ConfigError, choices
from edgevtc.vision import VisionPipeline

__all__ = ["LoadedBundle"]

#: Length of an answer where neither the caller nor the checkpoint sets one.
DEFAULT_MAX_TOKENS = 256


class LoadedBundle:
    """What a runner runs; graphs of the vision side are loaded when first used.

    Args:
        bundle: Folder of a bundle; None for the one inside the package.
        device: One of :data:`edgevtc.backends.DEVICES`, or a backend.
        threads: Threads inside an operator on a CPU; all this process may use where None.
        weight_format: Weight format of the decoder; None for the bundle's first.

    Raises:
        BundleError: The bundle is missing, altered or incomplete.
        ConfigError: The bundle holds no such weight format.
        BackendError: The device cannot serve it.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        device: str | Backend = "cpu",
        threads: int | None = None,
        weight_format: str | None = None,
    ) -> None:
        self.backend = create_backend(device, threads)
        self.bundle = Bundle(bundle)
        manifest = self.bundle.manifest
        self.vision = VisionPipeline(self.backend, self.bundle)
        decoder = manifest.decoder
        self.weight_format = weight_format or next(iter(decoder.graphs))
        if self.weight_format not in decoder.graphs:
            raise ConfigError(f"this bundle has no decoder in {self.weight_format!r}: {choices(decoder.graphs)}")
        graph = decoder.graphs[self.weight_format]
        session = self.backend.load(self.bundle.path, self.bundle.file(graph))
        self._decoder = {graph: session}
        self.generator = Generator(self.backend, session, decoder, self.bundle.tensor(decoder.embeddings))
        self.text = TextCodec(self.bundle.file("tokenizer.json"))
        self.template = ChatTemplate.read(self.bundle.file("chat_template.jinja"))
        self.stop_ids, self.max_tokens = generation_defaults(self.bundle)
        self.video_token_id = self.text.token_id(manifest.prompt.video_token)
        self.domain = Domain.read(self.bundle.file(manifest.domain)) if manifest.domain else None
        self.newline = None
        if manifest.prompt.video_newline:
            self.newline = self.bundle.tensor(decoder.special_embeddings["image_newline"])

    def warnings(self) -> list[str]:
        """A line for each graph loaded so far of which the CPU computes a part, though it is on another device."""
        lines = []
        for graph, session in {**self.vision.sessions, **self._decoder}.items():
            if operators := ", ".join(f"{name} ({count})" for name, count in sorted(session.left_to_cpu.items())):
                lines.append(f"{self.backend.name} has no kernels for all of {graph}, the CPU computes {operators}")
        return lines

    def rows(self, turns: Sequence[Message], video: VisualSpan) -> Rows:
        """A conversation about a video as the decoder's rows.

        Raises:
            BundleError: The chat template fails, or places the video other than once.
        """
        ids = self.text.encode(self.template.render(turns))
        return assemble(ids, self.video_token_id, video, self.generator.embed)


def generation_defaults(bundle: Bundle) -> tuple[set[int], int]:
    """Stop ids and the length of an answer, from the checkpoint's generation_config.json.

    Raises:
        BundleError: It is no JSON, names no stop ids, or has something else where numbers belong.
    """
    path = bundle.file("generation_config.json")
    try:
        config = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error}): export the bundle again") from None
    stop = config.get("eos_token_id") if isinstance(config, dict) else None
    if stop in (None, []):
        raise BundleError(f"{path} names no eos_token_id: export the bundle again")
    ids = stop if isinstance(stop, list) else [stop]
    length = config.get("max_new_tokens") or DEFAULT_MAX_TOKENS
    if not all(type(number) is int for number in (*ids, length)) or length < 1:
        raise BundleError(f"{path} has no numbers as eos_token_id and max_new_tokens: export the bundle again")
    return set(ids), length
