"""A small bundle that carries references, made without torch: the embedded one, with its own outputs as references."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgevtc import Runner
from edgevtc.bundle import FileEntry
from edgevtc.bundle.reader import file_sha256
from edgevtc.decoder.text import TextCodec
from edgevtc.measure.references import (
    NOISE_LEVELS,
    MethodReference,
    References,
    decoder_rows,
    new_projection,
)
from edgevtc.measure.verify import prompt_ids
from edgevtc.methods import method_key
from edgevtc.video import FrameSampler
from edgevtc.vision import EncodedVideo

QUESTION = "what color is the circle"
METHOD, BUDGET = "uniform", 58


def sign(folder: Path, change=lambda body: None) -> None:
    """Bring the manifest's hashes in line with the files, and its own with `change` made: no hash gives it away."""
    from edgevtc.bundle.manifest import digest

    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    for name in body["files"]:
        path = folder / name
        body["files"][name] = vars(FileEntry(file_sha256(path), path.stat().st_size))
    change(body)
    (folder / "manifest.json").write_text(json.dumps({**body, "manifest_sha256": digest(body)}))


def reference(folder: Path, clip: Path) -> References:
    """What the bundle itself makes of a clip."""
    runner = Runner(folder, method=METHOD, budget=BUDGET)
    vision = runner.bundle.manifest.vision
    size = (vision.image_height, vision.image_width)
    frames = list(FrameSampler(clip, vision.num_frames, size, resample=vision.resample))
    encoded: EncodedVideo = runner.vision.encode(frames)
    visual = runner.vision.compress(encoded, runner.method)
    projection = new_projection(vision.hidden_size)
    ids = prompt_ids(folder, TextCodec(folder / "tokenizer.json"), QUESTION)
    found = References(
        frames=np.stack([frame.image for frame in frames]),
        features=encoded.features,
        projection=projection,
        methods={
            method_key(METHOD, BUDGET): MethodReference(
                visual.positions,
                visual.assignment,
                visual.tokens @ projection,
                stability=np.ones((len(NOISE_LEVELS), 2)),
                drift=np.zeros(len(NOISE_LEVELS)),
            )
        },
        prompt_ids=np.array(ids, np.int32),
        prompt_embeddings=runner.generator.embed(ids) @ projection,
        logits=np.empty(0, np.float32),
    )
    rows = decoder_rows(found, runner.video_token_id, runner.newline, runner.generator.embed)
    return replace(found, logits=runner.generator.prefill(rows, 1)[0])
