"""Measure what half precision and an int8 encoder cost in accuracy and gain in time, and print markdown tables.

    python scripts/bench_precision.py accuracy --videos 64
    python scripts/bench_precision.py time --layers 3

`accuracy` takes the package's own bundle, converts its graphs as an export does, and asks about fresh scenes of the
world, the same of each: tokens and kept positions are compared with those of float32, answers with the truth. `time`
runs the encoders side by side on one thread, in processor time: the embedded model's, and one of SigLIP-so400m's widths
with a few layers of random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from edgevtc import Runner
from edgevtc.backends import Session, create_backend
from edgevtc.bundle import Bundle, embedded_path
from edgevtc.eval.intervals import Sheet
from edgevtc.eval.world import World
from edgevtc.exporter.calibrate import calibration_frames, largest_activations
from edgevtc.exporter.precision import to_float16
from edgevtc.exporter.quantize_encoder import quantize_encoder
from edgevtc.exporter.store import read_graph
from edgevtc.exporter.vision import export_encoder
from edgevtc.measure.compare import compare_decisions
from edgevtc.models import ModelAdapter, Vision, open_model
from edgevtc.runner import VideoSession
from edgevtc.video import Frame

#: Precision of the vision graphs.
FORMATS = ("float32", "float16", "w8a8")

CHECKPOINT = embedded_path().parent / "checkpoint"

#: Methods asked, each at budgets of the package's bundle.
METHODS = (("none", 576), ("infomerge", 58), ("holitom", 58))

#: Runs of each encoder at least, and processor seconds for which all are run; the least run is told, for whatever else
#: runs only adds to it.
ROUNDS, PATIENCE_S = 5, 10.0


@dataclass
class Tally:
    """Of one format: cosines of tokens, and by method positions, inputs' places and right answers."""

    cosines: list[NDArray] = field(default_factory=list)
    kept: dict[str, list[float]] = field(default_factory=dict)
    went: dict[str, list[float]] = field(default_factory=dict)
    right: dict[str, list[int]] = field(default_factory=dict)
    same: dict[str, list[int]] = field(default_factory=dict)


def accuracy(work: Path, videos: int, questions: int, clips: list[Path]) -> None:
    """Convert, ask, compare."""
    runners = {form: Runner(threads=1) for form in FORMATS}
    model = open_model(CHECKPOINT)
    largest = largest_activations(model.vision(), calibration_frames(model, clips))
    for form, runner in runners.items():
        bundle = runner.bundle
        names = [bundle.manifest.vision.encoder, *(bundle.manifest.method(*method).compressor for method in METHODS)]
        for name in names if form != "float32" else ():
            graph = read_graph(bundle.path, name)
            if form == "float16":
                graph = to_float16(graph)
            elif name == bundle.manifest.vision.encoder:
                graph = quantize_encoder(graph, largest)
            runner.vision._sessions[name] = load(graph, work)
    world = World("dev", 0)
    tallies = {name: Tally() for name in FORMATS}
    asked = []
    for video in range(videos):
        sample = world.sample(limit=questions)
        asked.append(len(sample.questions))
        pairs = [(question.text, question.answer) for question in sample.questions]
        compare(runners, sample.frames, pairs, tallies)
        if not (video + 1) % 16:
            print(f"\n{video + 1} scenes, {sum(asked)} questions\n")
            report(tallies, np.array(asked))
            print(flush=True)


def compare(
    runners: Mapping[str, Runner], frames: NDArray, questions: list[tuple[str, str]], tallies: Mapping[str, Tally]
) -> None:
    """Add one scene to the tallies; the first runner is what the others are compared with."""
    expected: dict[str, tuple] = {}
    tokens: NDArray = np.empty(0)
    for name, runner in runners.items():
        tally = tallies[name]
        encoded = runner.vision.encode(Frame(index, float(index), image) for index, image in enumerate(frames))
        found = encoded.features["frame_tokens"].reshape(-1, encoded.features["frame_tokens"].shape[-1])
        tokens = tokens if len(tokens) else found
        lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(tokens, axis=-1)
        tally.cosines.append((found.astype(np.float64) * tokens).sum(-1) / lengths)
        for entry in (runner.bundle.manifest.method(*method) for method in METHODS):
            key = f"{entry.name} {entry.budget}"
            runner.method = entry
            session = VideoSession(runner, encoded, time.perf_counter(), [])
            answers = [session.ask(text).answer for text, _ in questions]
            visual, reference = expected.setdefault(key, (session.visual, answers))
            decided = compare_decisions(
                session.visual.positions, session.visual.assignment, visual.positions, visual.assignment
            )
            tally.kept.setdefault(key, []).append(decided.overlap)
            tally.went.setdefault(key, []).append(decided.agreement)
            right = sum(answer == truth for answer, (_, truth) in zip(answers, questions, strict=True))
            tally.right.setdefault(key, []).append(right)
            tally.same.setdefault(key, []).append(sum(map(str.__eq__, answers, reference)))


def report(tallies: Mapping[str, Tally], asked: NDArray) -> None:
    """Two tables: tokens and decisions; answers."""
    base, *others = tallies
    print("| format | method | token cosine: mean, least | positions kept | inputs placed alike |")
    print("|---|---|---:|---:|---:|")
    for name in others:
        cosines = np.concatenate(tallies[name].cosines)
        for key, kept in tallies[name].kept.items():
            cells = f"{np.mean(kept):.2%} | {np.mean(tallies[name].went[key]):.2%}"
            print(f"| {name} | {key} | {cosines.mean():.6f}, {cosines.min():.6f} | {cells} |")
    print("\n| method | format | accuracy | difference, points | same answer |")
    print("|---|---|---:|---:|---:|")
    for key in tallies[base].right:
        sheet = Sheet(np.stack([np.array(tally.right[key]) for tally in tallies.values()], 1), asked)
        for column, name in enumerate(tallies):
            apart = sheet.difference(column, 0)
            change = f"{100 * apart.value:+.2f} [{100 * apart.low:+.2f}, {100 * apart.high:+.2f}]" if column else ""
            same = f"{sum(tallies[name].same[key]) / asked.sum():.1%}"
            print(f"| {key} | {name} | {sheet.score(column).accuracy:.3f} | {change} | {same} |")


def time_encoders(work: Path, layers: int, frames: int) -> None:
    """Seconds a frame of each encoder, all in one process and one thread, round by round."""
    print("| encoder | frames a call | format | ms a frame | times float32 | token cosine | weights, MB |")
    print("|---|---:|---|---:|---:|---:|---:|")
    model, bundle = open_model(CHECKPOINT), Bundle()
    time_model(work, "embedded", model, model.vision(), read_graph(bundle.path, bundle.manifest.vision.encoder))
    folder = work / f"wide-{layers}"
    if not folder.exists():
        write_wide(folder, layers)
    wide = open_model(folder)
    vision = wide.vision(("frame_tokens",))
    time_model(work, f"SigLIP-so400m widths, {layers} layers", wide, vision, export_encoder(vision, frames))


def time_model(work: Path, name: str, model: ModelAdapter, vision: Vision, plain: ir.Model) -> None:
    """Rows of one model's encoders."""
    scenes = list(calibration_frames(model, []))
    shape = plain.graph.inputs[0].shape
    assert shape is not None and isinstance(shape[0], int)
    count = shape[0]
    quantized = quantize_encoder(plain, largest_activations(vision, scenes[:8]))
    graphs = {"float32": plain, "float16": to_float16(plain), "w8a8": quantized}
    sessions = {form: load(graph, work) for form, graph in graphs.items()}
    batch = np.stack(scenes[-count:])
    for session in sessions.values():
        session.bind("frames", create_backend("cpu", 1).tensor(batch))
    seconds: dict[str, list[float]] = {form: [] for form in graphs}
    tokens = {}
    begin = time.process_time()
    while len(seconds["float32"]) < ROUNDS or time.process_time() - begin < PATIENCE_S:
        for form, session in sessions.items():
            start = time.process_time()
            session.run()
            seconds[form].append(time.process_time() - start)
    for form, session in sessions.items():
        tokens[form] = session.output("frame_tokens").numpy().astype(np.float64).ravel()
    for form, graph in graphs.items():
        best, base = min(seconds[form]), min(seconds["float32"])
        cosine = tokens[form] @ tokens["float32"] / np.linalg.norm(tokens[form]) / np.linalg.norm(tokens["float32"])
        size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
        cells = f"{1e3 * best / count:.1f} | {base / best:.2f} | {cosine:.6f} | {size / 1e6:.1f}"
        print(f"| {name} | {count} | {form} | {cells} |", flush=True)


def load(graph: ir.Model, work: Path) -> Session:
    """A session of a graph on one thread."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        ir.save(graph, Path(folder) / "graph.onnx")
        return create_backend("cpu", 1).load(Path(folder), Path(folder) / "graph.onnx")


def write_wide(folder: Path, layers: int) -> None:
    """A checkpoint of SigLIP-so400m/14-384's widths with random weights, and of a language model hardly anything."""
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=layers,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=8,
        hidden_size=896,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=6,
        video_token_index=7,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embedding" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "time"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/precision"), help="folder for clips and weights")
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--questions", type=int, default=6, help="most of one clip")
    parser.add_argument("--calibrate", type=Path, nargs="+", default=[], help="clips, as of edgevtc export")
    parser.add_argument("--layers", type=int, default=3, help="of the wide tower")
    parser.add_argument("--frames", type=int, default=1, help="of one call of the wide tower")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what == "accuracy":
        accuracy(args.work, args.videos, args.questions, args.calibrate)
    else:
        time_encoders(args.work, args.layers, args.frames)


if __name__ == "__main__":
    main()
