"""Whether a bundle's graphs and references have the sizes its manifest states: what runs a bundle goes by those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from edgevtc.backends import Session
from edgevtc.bundle import Bundle, DecoderEntry, MethodEntry, VisionEntry
from edgevtc.errors import BundleError
from edgevtc.loaded import generation_defaults
from edgevtc.measure.references import References
from edgevtc.methods import budget_for, method_key

__all__ = [
    "Shape",
    "compressor_shapes",
    "decoder_shapes",
    "encoder_shapes",
    "fused_shapes",
    "require_shapes",
    "require_whole",
]

#: Sizes along each axis; None where any will do.
Shape = tuple[int | None, ...]


def feature_shapes(vision: VisionEntry, frames: int) -> dict[str, Shape]:
    """What the encoder makes of so many frames."""
    tokens = vision.tokens_per_frame
    return {
        "frame_tokens": (frames, tokens, vision.hidden_size),
        "saliency": (frames, tokens),
        "frame_features": (frames, None),
        "keys": (frames, tokens, None),
    }


def frames_shape(vision: VisionEntry, frames: int) -> Shape:
    """So many frames as graphs take them."""
    return frames, vision.image_height, vision.image_width, 3


def encoder_shapes(vision: VisionEntry) -> dict[str, Shape]:
    """Inputs and outputs of the encoder."""
    frames = vision.frames_per_call
    return {"frames": frames_shape(vision, frames), **feature_shapes(vision, frames)}


def compressor_shapes(vision: VisionEntry, method: MethodEntry) -> dict[str, Shape]:
    """Inputs and outputs of a method's graph."""
    frames, budget = vision.num_frames, method.budget
    return {
        **feature_shapes(vision, frames),
        "tokens": (budget, vision.hidden_size),
        "positions": (budget,),
        "counts": (budget,),
        "assignment": (frames, vision.tokens_per_frame),
        "segments": (frames,),
    }


def fused_shapes(vision: VisionEntry, method: MethodEntry) -> dict[str, Shape]:
    """Inputs and outputs of a method's graph from frames on."""
    return {"frames": frames_shape(vision, vision.num_frames), **compressor_shapes(vision, method)}


def decoder_shapes(decoder: DecoderEntry) -> dict[str, Shape]:
    """Inputs and outputs of the language model."""
    cache = 1, decoder.num_kv_heads, None, decoder.head_dim
    return {
        "inputs_embeds": (1, None, decoder.hidden_size),
        "logits": (1, 1, decoder.vocab_size),
        **{
            f"past_key_values.{layer}.{kind}": cache for layer in range(decoder.num_layers) for kind in ("key", "value")
        },
    }


def require_shapes(graph: str, session: Session, stated: Mapping[str, Shape]) -> None:
    """Raise unless a loaded graph declares what the manifest states, but for what it leaves open.

    Raises:
        BundleError: It does not; the message names input or output.
    """
    for name, spec in {**session.inputs, **session.outputs}.items():
        declared = tuple(size if isinstance(size, int) else None for size in spec.shape)
        if name in stated and not fits(declared, stated[name]):
            raise BundleError(
                f"{graph} has {name} of shape {text(spec.shape)}, the manifest says {text(stated[name])}: "
                "export the bundle again"
            )


def require_whole(bundle: Bundle, references: References) -> None:
    """Raise unless a bundle's references and files are what its manifest states, and that does not contradict itself.

    Raises:
        BundleError: They are not.
    """
    if (wrong := next(contradictions(bundle, references), None)) is not None:
        raise BundleError(f"{bundle.path}: {wrong}: export the bundle again")


def contradictions(bundle: Bundle, references: References) -> Iterator[str]:
    """What the references or the files of a bundle have otherwise than its manifest, in words."""
    manifest = bundle.manifest
    vision, decoder = manifest.vision, manifest.decoder
    stated = feature_shapes(vision, vision.num_frames)
    held = [
        ("frames", references.frames.shape, frames_shape(vision, vision.num_frames)),
        ("logits", references.logits.shape, (decoder.vocab_size,)),
        *((name, value.shape, stated[name]) for name, value in references.features.items() if name in stated),
    ]
    for method in manifest.methods:
        if (reference := references.methods.get(method_key(method.name, method.budget))) is None:
            yield f"its references have nothing of {method.name} at {method.budget} tokens, which the manifest names"
            continue
        if unknown := set(method.needs) - set(references.features):
            yield f"its references have no {min(unknown)}, which {method.name} needs"
        held.append((f"the positions of {method.name}", reference.positions.shape, (method.budget,)))
        held.append((f"the places of {method.name}", reference.assignment.shape, stated["saliency"]))
    for name, shape, expected in held:
        if not fits(shape, expected):
            yield f"its references have {name} of shape {text(shape)}, the manifest says {text(expected)}"
    if decoder.embeddings.shape != (decoder.vocab_size, decoder.hidden_size):
        yield f"the manifest has {text(decoder.embeddings.shape)} token embeddings for {decoder.vocab_size} tokens"
    if manifest.prompt.video_newline and "image_newline" not in decoder.special_embeddings:
        yield "the manifest asks for an image_newline and has no embedding of it"
    ids = {*references.prompt_ids.tolist(), *generation_defaults(bundle)[0]}
    if outside := [number for number in ids if not (isinstance(number, int) and 0 <= number < decoder.vocab_size)]:
        yield f"token {outside[0]!r} of the prompt or of what ends an answer is none of {decoder.vocab_size}"
    yield from inner_contradictions(bundle)


def inner_contradictions(bundle: Bundle) -> Iterator[str]:
    """What a manifest has otherwise than itself, or than the weights that its graphs read, in words."""
    manifest = bundle.manifest
    vision, entry = manifest.vision, manifest.verification
    if vision.grid_height * vision.grid_width != vision.tokens_per_frame:
        grid = text((vision.grid_height, vision.grid_width))
        yield f"the manifest has a grid of {grid} for {vision.tokens_per_frame} tokens a frame"
    for method in manifest.methods:
        if budget_for(method.retention_ratio, vision.num_frames, vision.tokens_per_frame) != method.budget:
            share = f"{method.retention_ratio:.4g} of {manifest.tokens_total}"
            yield f"the manifest has {method.name} at {method.budget} tokens, as {share}"
    (key, count), *_ = Counter(method_key(method.name, method.budget) for method in manifest.methods).most_common(1)
    if count > 1:
        yield f"the manifest has {key} twice"
    # A bundle that is still being exported has been held to nothing yet.
    if entry and (entry.answer or entry.differences) and (missing := set(manifest.graphs) - set(entry.differences)):
        yield f"the manifest does not say how far {min(missing)} was from torch at its export"
    for graph in manifest.graphs:
        if graph in manifest.files and (unlisted := bundle.weights(graph) - set(manifest.files)):
            yield f"{graph} reads {min(unlisted)}, which the manifest does not list"


def fits(shape: Shape, stated: Shape) -> bool:
    """Whether two shapes are one, as far as both say."""
    return len(shape) == len(stated) and all(
        size == other or size is None or other is None for size, other in zip(shape, stated, strict=True)
    )


def text(shape: tuple[int | str | None, ...]) -> str:
    """A shape in words."""
    return "×".join("?" if size is None else str(size) for size in shape)
