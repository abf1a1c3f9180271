"""Export as a whole: the bundle answers as transformers does, and what cannot be exported is said before any work."""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_export import SHORTEST_OPTIONS
from transformers import LlavaOnevisionForConditionalGeneration

from edgevtc import Runner
from edgevtc.bundle import embedded_path
from edgevtc.catalogue import model_recipe
from edgevtc.cli import main
from edgevtc.cli.export import Export, resolve
from edgevtc.errors import ConfigError, ExportError, VideoError
from edgevtc.exporter import export, vision_parts
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.parts import RECORD
from edgevtc.methods import budget_for, builtin_methods
from edgevtc.video import FrameSampler

pytestmark = pytest.mark.export

CHECKPOINT = embedded_path().parent / "checkpoint"
ROOT = Path(__file__).parents[2]
SOURCES = {"saliency": "siglip_last_mean", "frame_features": "mean"}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The embedded checkpoint, exported with an fp32 decoder for comparison."""
    options = ExportOptions(
        methods=("none", "uniform"),
        retention_ratios=(0.1,),
        num_frames=16,
        frames_per_call=4,
        weight_formats=("fp32", "w8a8", "int8"),
        **SOURCES,
    )
    return export_bundle(CHECKPOINT, tmp_path_factory.mktemp("export") / "bundle", options)


@pytest.fixture(scope="session")
def transformer():
    return LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def transformers_answer(model, runner, frames, question, visual=None, positions=None):
    """Greedy answer of transformers on the same frames; with `visual`, on those tokens at those positions."""
    ids = runner.text.encode(
        runner.template.render([{"role": "user", "content": [{"type": "text", "text": question}]}])
    )
    at = ids.index(runner.video_token_id)
    embed = model.get_input_embeddings()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)[None]
    with torch.no_grad():
        if visual is None:
            visual = model.model.get_video_features(pixels).pooler_output.reshape(-1, embed.weight.shape[1])[:-1]
            positions = torch.arange(len(visual))
        newline = model.model.image_newline[None]
        span = runner.bundle.manifest.tokens_total if runner.method.positions == "original" else len(visual)
        rows = torch.cat([embed(torch.tensor(ids[:at])), visual, newline, embed(torch.tensor(ids[at + 1 :]))])[None]
        tail = torch.arange(at + span, at + span + 1 + len(ids) - at - 1)
        place = torch.cat([torch.arange(at), at + positions, tail])[None]
        words, logits = [], None
        for _ in range(4):
            output = model.model.language_model(
                inputs_embeds=rows, position_ids=place, attention_mask=torch.ones(1, rows.shape[1], dtype=torch.long)
            )
            scores = model.lm_head(output.last_hidden_state[0, -1])
            logits = scores if logits is None else logits
            if (token := int(scores.argmax())) in runner.stop_ids:
                break
            words.append(token)
            rows = torch.cat([rows, embed(torch.tensor([[token]]))], 1)
            place = torch.cat([place, place[:, -1:] + 1], 1)
    return "".join(runner.text.stream(iter(words))), logits.numpy()


@pytest.mark.parametrize("method", ["none", "uniform"])
def test_answers_and_logits_equal_those_of_transformers(bundle, transformer, samples, sample_questions, method):
    runner = Runner(bundle.path, method=method)
    for entry in sample_questions[:2]:
        vision = bundle.manifest.vision
        size = (vision.image_height, vision.image_width)
        frames = np.stack([f.image for f in FrameSampler(samples / entry["file"], 16, size, resample=vision.resample)])
        video = runner.open(samples / entry["file"])
        given = {}
        if method != "none":
            positions = torch.from_numpy(video.visual.positions.astype(np.int64))
            given = {"visual": torch.from_numpy(video.visual.tokens), "positions": positions}
        for item in entry["questions"][:3]:
            seen = []
            prefill = runner.generator.prefill
            runner.generator.prefill = lambda rows, most, run=prefill, seen=seen: (
                seen.append(run(rows, most)) or seen[-1]
            )
            answer = video.ask(item["question"]).answer
            runner.generator.prefill = prefill
            expected, logits = transformers_answer(transformer, runner, frames, item["question"], **given)
            assert answer == expected
            assert np.abs(seen[0][0] - logits).max() <= 1e-4 * np.abs(logits).max()


def test_quantized_decoders_answer_like_fp32(bundle, samples, sample_questions):
    runners = [Runner(bundle.path, weight_format=form) for form in ("fp32", "w8a8", "int8")]
    for entry in sample_questions[:3]:
        videos = [runner.open(samples / entry["file"]) for runner in runners]
        for item in entry["questions"]:
            assert len({video.ask(item["question"]).answer for video in videos}) == 1


def test_the_fused_graph_is_the_encoder_and_the_compressor(bundle, samples):
    runner = Runner(bundle.path, method="uniform")
    vision = bundle.manifest.vision
    size = (vision.image_height, vision.image_width)
    frames = np.stack([f.image for f in FrameSampler(samples / "yard.mp4", 16, size, resample=vision.resample)])
    visual = runner.open(samples / "yard.mp4").visual
    session = runner.backend.load(bundle.path, bundle.file(runner.method.fused))
    session.bind("frames", runner.backend.tensor(frames))
    session.run()
    assert np.array_equal(session.output("positions").numpy(), visual.positions)
    assert np.abs(session.output("tokens").numpy() - visual.tokens).max() < 1e-4


def test_weights_are_stored_once(bundle):
    names = [name for name in bundle.manifest.files if name.startswith("weights/")]
    hashes = [bundle.manifest.files[name].sha256 for name in names]
    assert len(hashes) == len(set(hashes))
    # The fused graphs add nothing to the encoder's weights: fp32 vision once, the decoder in fp32 and twice in 8 bits.
    parameters = sum(p.numel() for p in LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINT).parameters())
    assert sum(bundle.manifest.files[name].size for name in names) < 4 * parameters * 1.6


def test_positions_are_written_and_obeyed(tmp_path, samples, transformer, bundle):
    options = ExportOptions(
        methods=("uniform",),
        retention_ratios=(0.1,),
        num_frames=16,
        positions="contiguous",
        fused=False,
        weight_formats=("fp32",),
        **SOURCES,
    )
    other = Runner(export_bundle(CHECKPOINT, tmp_path / "out", options).path)
    assert other.method.positions == "contiguous" and other.method.fused == ""
    video = other.open(samples / "yard.mp4")
    assert video.span.offsets.tolist() == list(range(59)) and video.span.length == 59
    original = Runner(bundle.path, method="uniform").open(samples / "yard.mp4")
    assert np.array_equal(original.visual.positions, video.visual.positions)
    assert original.span.offsets.tolist() == [*video.visual.positions.tolist(), 576] and original.span.length == 577


def test_the_shipped_bundle_follows_its_recipe():
    recipe, manifest = model_recipe("embedded"), Runner().bundle.manifest
    assert set(recipe.methods) == set(builtin_methods()) and not any(entry.fused for entry in manifest.methods)
    ratios = {name: (1.0,) if name == "none" else recipe.retention_ratios for name in recipe.methods}
    expected = [
        (name, budget_for(r, recipe.num_frames, manifest.vision.tokens_per_frame))
        for name in recipe.methods
        for r in ratios[name]
    ]
    assert [(entry.name, entry.budget) for entry in manifest.methods] == expected
    assert manifest.vision.num_frames == recipe.num_frames and tuple(manifest.decoder.graphs) == recipe.weight_formats


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ("infomerg",)}, ConfigError, "unknown method 'infomerg': one of: none"),
        ({"retention_ratios": (0.0,)}, ConfigError, "retention ratio 0.0"),
        ({"num_frames": 0}, ConfigError, "0 frames of a clip is not valid"),
        ({"frames_per_call": -1}, ConfigError, "-1 frames of an encoder call is not valid"),
        ({"max_positions": 0}, ConfigError, "0 positions is not valid"),
        ({"max_positions": 576}, ConfigError, "576 positions leave none for a question: uniform takes 1152 of them"),
        ({"num_frames": 512}, ConfigError, "4096 positions leave none .* takes 18432 of them; give fewer frames"),
        ({"saliency": "norm"}, ConfigError, "'norm' is not valid: one of: siglip_head, siglip_last_mean"),
        ({"frame_features": "norm"}, ConfigError, "'norm' is not valid: one of: siglip_head, mean"),
        ({"siglip_head": Path("nowhere")}, ConfigError, "there is no nowhere to take a pooling head from"),
        ({"clip": Path("nowhere.mp4")}, VideoError, "nowhere.mp4"),
        ({"weight_formats": ("int2",)}, ConfigError, "'int2' is not valid: one of: fp32"),
        ({"positions": "odd"}, ConfigError, "one of: original, contiguous"),
        ({"parameters": {"holitom": {"tau": 1}}}, ConfigError, "holitom, which is not exported"),
        ({"parameters": {"uniform": {"tau": 1}}}, ConfigError, "no parameter 'tau'"),
        ({"methods": ()}, ConfigError, "at least one method"),
    ],
)
def test_what_cannot_be_exported_is_said_first(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        export_bundle(CHECKPOINT, tmp_path / "out", ExportOptions(**options))
    assert not any(tmp_path.iterdir())


def test_parameters_of_the_command_line_come_before_those_of_a_recipe(tmp_path):
    recipe = (ROOT / "export" / "embedded.toml").read_text(encoding="utf-8")
    file = tmp_path / "tuned.toml"
    tuned = "[parameters.infomerge]\npenalty = 10.0\nneighbours = 5\n[parameters.holitom]\nthreshold = 0.7\n"
    file.write_text(recipe + tuned, encoding="utf-8")
    parser = argparse.ArgumentParser()
    Export().add_arguments(parser)
    given = [str(file), "-o", str(tmp_path / "out"), "--method", "infomerge", "--set", "infomerge.penalty=8"]
    _, options = resolve(parser.parse_args(given))
    assert options.parameters == {"infomerge": {"penalty": "8", "neighbours": 5}}


def test_the_command_exports_and_reports(tiny_folder, traced_once, tmp_path, capsys, monkeypatch):
    arguments = ["export", str(tiny_folder), "-o", str(tmp_path / "out"), "--num-frames", "2", "--frames-per-call", "2"]
    options = ["--retention-ratio", "0.5", "--quantize", "fp32", "--no-fused", "--json"]
    assert main([*arguments, *options]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert "\nverifying an answer\n" in printed.err and "11/11" not in printed.err
    assert report["methods"] == [{"name": "uniform", "budget": 4, "retention_ratio": 0.5}]
    assert report["size_bytes"] > 1e5 and report["answer"] and report["worst_difference"] < 1e-3
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal, where a bar counts the parts
    assert main([*arguments, *options, "--overwrite"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["methods"] == report["methods"] and "11/11" in printed.err


def test_a_disk_that_fills_up_is_one_line_and_what_was_finished_is_kept(tiny_folder, traced_once, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["export", str(tiny_folder), "-o", str(tmp_path / "out"), "--num-frames", "2", "--no-fused"]
    arguments += ["--frames-per-call", "2", "--retention-ratio", "0.5", "--weight-format", "w8a8"]

    def write_embeddings(making, part):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        part.file("large", bytes(5000))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgevtc.exporter.decoder_parts.write_embeddings", write_embeddings)
        try:
            assert main(arguments) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("edgevtc: error: cannot write ") and error[-1].endswith("so mend that and run it again")
    (left,) = tmp_path.iterdir()
    assert {record.parent.name.partition(".")[0] for record in left.glob(f"*/{RECORD}")} == {
        "encoder",
        "compressors-uniform-b4",
        "decoder-w8a8",
    }
    assert main(arguments) == 0
    assert "taking encoder as it was finished before" in capsys.readouterr().err


def test_other_trouble_with_files_is_one_line_too(tiny_folder, traced_once, tmp_path, monkeypatch):
    def fail(making, question):
        raise PermissionError(13, "Permission denied", "some/file")

    monkeypatch.setattr(export, "write_texts", fail)
    with pytest.raises(ExportError, match=r"stopped at some/file \(Permission denied\): finished parts are kept"):
        export_bundle(tiny_folder, tmp_path / "out", SHORTEST_OPTIONS)


def test_an_interrupted_export_says_that_it_goes_on(tiny_folder, tmp_path, monkeypatch, capsys):
    def interrupt(making):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "make_vision", interrupt)
    assert main(["export", str(tiny_folder), "-o", str(tmp_path / "out"), "--num-frames", "2"]) == 130
    error = capsys.readouterr().err
    assert error == "edgevtc: interrupted: finished parts are kept, and the same command goes on with them\n"


def test_fewer_frames_a_call_than_asked_for_are_told(tiny_folder, tmp_path, monkeypatch):
    def interrupt(making):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "make_vision", interrupt)
    for frames, most, told in (
        (7, 4, ["encoding 1 frames a call: no number up to 4 above that divides 7"]),
        (2, 4, []),
    ):
        said: list[str] = []
        options = replace(SHORTEST_OPTIONS, num_frames=frames, frames_per_call=most)
        with pytest.raises(KeyboardInterrupt):
            export_bundle(tiny_folder, tmp_path / "out", options, progress=said.append)
        assert said == told


def test_weight_formats_are_given_once(capsys):
    with pytest.raises(SystemExit):
        main(["export", "embedded", "-o", "out", "--weight-format", "int4", "--quantize", "fp32"])
    assert "--weight-format/--quantize: given twice: give it once, with commas" in capsys.readouterr().err


def test_ctrl_c_ends_the_processes_that_trace_without_a_word(tiny_folder, tmp_path):
    arguments = ["--num-frames", "2", "--retention-ratio", "0.5", "--no-fused", "--method", "uniform,frames,random"]
    command = [sys.executable, "-m", "edgevtc", "export", str(tiny_folder), "-o", str(tmp_path / "out"), "--jobs", "2"]
    with subprocess.Popen(
        [*command, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "in 2 processes" in line:
                time.sleep(0.5)  # while they load torch
                os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 130
    assert not list(tmp_path.rglob("compressors"))  # what they were at is not waited for
    assert [line.split()[0] for line in lines[:-1]] == ["reading", "tracing", "tracing"]
    assert lines[-1].startswith("edgevtc: interrupted: finished parts are kept")
    with pytest.raises(ProcessLookupError):
        for _ in range(300):  # what tracks the processes' resources ends a little later
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_a_killed_process_that_traces_is_told(tiny_folder, traced_once, tmp_path, monkeypatch):
    monkeypatch.setattr(vision_parts, "start_worker", partial(os._exit, 9))
    options = replace(SHORTEST_OPTIONS, methods=("uniform", "none"))
    with pytest.raises(ExportError, match="run it again with fewer --jobs; finished parts are kept"):
        export_bundle(tiny_folder, tmp_path / "out", options, jobs=2)
