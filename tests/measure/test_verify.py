"""What is wrong with a bundle is found and named: by the hashes, and where those were mended, by the numbers."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from measure_bundle import BUDGET, METHOD, sign

from edgevtc.backends import BACKENDS
from edgevtc.backends.onnxruntime import OnnxRuntimeBackend
from edgevtc.bundle import Bundle
from edgevtc.cli import main
from edgevtc.errors import BundleError
from edgevtc.measure.references import NOISE_LEVELS, MethodReference, References
from edgevtc.measure.verify import Verifier, firmness, is_division, stands_for_itself


def failures(folder: Path) -> dict[str, str]:
    return {check.part: check.reason for check in Verifier(Bundle(folder), threads=1).run() if check.passed is False}


def weights_of(folder: Path, graph: str) -> list[Path]:
    """Weight files a graph reads."""
    names = re.findall(rb"weights/[0-9a-f]{32}", (folder / graph).read_bytes())
    return [folder / name.decode() for name in dict.fromkeys(names)]


def replace_last(path: Path, old: bytes, new: bytes) -> None:
    head, found, tail = path.read_bytes().rpartition(old)
    assert found and len(old) == len(new)
    path.write_bytes(head + new + tail)


def decoder_of(folder: Path) -> str:
    return next(iter(Bundle(folder).manifest.decoder.graphs.values()))


# One function a damage: it edits the bundle's files and returns a change of the manifest, or None.


def scale_a_weight(folder):
    path = max(weights_of(folder, "encoder.onnx"), key=lambda path: path.stat().st_size)
    (np.fromfile(path, np.float32) * np.float32(1.05)).tofile(path)


def scale_quantization_scales(folder):
    def is_scales(path):
        values = np.fromfile(path, np.float32) if path.stat().st_size % 4 == 0 else np.array([np.nan])
        with np.errstate(invalid="ignore"):
            return np.isfinite(values).all() and 1e-6 < np.abs(values).max() < 0.1

    path = max(filter(is_scales, weights_of(folder, decoder_of(folder))), key=lambda path: path.stat().st_size)
    (np.fromfile(path, np.float32) * np.float32(1.5)).tofile(path)


def turn_an_addition(folder):
    replace_last(folder / "encoder.onnx", b"\x22\x03Add", b"\x22\x03Sub")


def keep_another_token(folder):
    positions = References.read(folder / "references.npz").methods[f"{METHOD}-b{BUDGET}"].positions
    moved = positions.copy()
    moved[3:6] += 1
    replace_last(folder / f"compressors/{METHOD}-b{BUDGET}.onnx", positions.tobytes(), moved.tobytes())


def swap_two_words(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["circle"], vocabulary["color"] = vocabulary["color"], vocabulary["circle"]
    path.write_text(json.dumps(content))


def damage_the_embeddings(folder):
    entry = Bundle(folder).manifest.decoder.embeddings
    table = np.fromfile(folder / entry.file, entry.dtype)
    (table * np.float16(1.25)).astype(entry.dtype).tofile(folder / entry.file)


def name_another_graph(folder):
    def change(body):
        graph = next(name for name in body["files"] if name.startswith("compressors/none"))
        body["methods"][0]["compressor"] = graph
        body["verification"]["differences"][graph] = 1e-6

    return change


def forget_the_newline(folder):
    def change(body):
        body["prompt"]["video_newline"] = False

    return change


def change_the_answer(folder):
    def change(body):
        body["verification"]["answer"] += " and more"

    return change


def state(*path):
    """A damage that has the manifest say something else; the value comes last."""

    def damage(folder):
        def change(body):
            for key in path[:-2]:
                body = body[key]
            assert body[path[-2]] != path[-1]
            body[path[-2]] = path[-1]

        return change

    return damage


def end_answers_with(token):
    def damage(folder):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": token}))

    return damage


def name_a_method_twice(folder):
    def change(body):
        body["methods"].append(body["methods"][0])

    return change


def leave_out_a_weight(folder):
    def change(body):
        body["files"].pop(weights_of(folder, "encoder.onnx")[0].relative_to(folder).as_posix())

    return change


NUMBERS = [
    (scale_a_weight, "encoder.onnx"),
    (scale_quantization_scales, "decoder/"),
    (turn_an_addition, "encoder.onnx"),
    (keep_another_token, f"compressors/{METHOD}-b{BUDGET}.onnx"),
    (swap_two_words, "prompt"),
    (damage_the_embeddings, "token embeddings"),
    (name_another_graph, "compressors/none"),
    (forget_the_newline, "decoder/"),
    (change_the_answer, "answer"),
]


def test_an_intact_bundle_passes(pristine):
    checks = list(Verifier(Bundle(pristine), threads=1).run())
    assert [check.status for check in checks] == ["PASSED"] * len(checks)
    manifest = Bundle(pristine).manifest
    method = manifest.methods[0]
    graphs = {manifest.vision.encoder, method.compressor, *manifest.decoder.graphs.values()}
    assert {check.part for check in checks} == graphs | {"prompt", "token embeddings", "answer"}


@pytest.mark.parametrize(("damage", "part"), NUMBERS, ids=[damage.__name__ for damage, _ in NUMBERS])
def test_damage_that_no_hash_betrays_is_found_by_the_numbers(bundle_copy, damage, part):
    change = damage(bundle_copy)
    sign(bundle_copy, change or (lambda body: None))
    found = failures(bundle_copy)
    assert any(name.startswith(part) for name in found), found
    assert all(found.values())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (state("vision", "num_frames", 8), "references have frames of shape 16×96×96×3, the manifest says 8×96×96×3"),
        (state("vision", "image_height", 64), "the manifest says 16×64×96×3"),
        (state("vision", "tokens_per_frame", 9), "references have frame_tokens of shape"),
        (state("methods", 0, "budget", 60), f"references have nothing of {METHOD} at 60 tokens"),
        (state("methods", 0, "needs", ["depth"]), f"references have no depth, which {METHOD} needs"),
        (state("decoder", "vocab_size", 7), "references have logits of shape"),
        (state("decoder", "special_embeddings", {}), "asks for an image_newline and has no embedding"),
        (state("vision", "grid_height", 7), "the manifest has a grid of 7×6 for 36 tokens a frame"),
        (state("methods", 0, "retention_ratio", 0.6), f"the manifest has {METHOD} at {BUDGET} tokens, as 0.6 of 576"),
        (name_a_method_twice, f"the manifest has {METHOD}-b{BUDGET} twice"),
        (state("verification", "differences", {}), "does not say how far compressors/"),
        (leave_out_a_weight, "encoder.onnx reads weights/"),
        (end_answers_with(10**6), "token 1000000 of the prompt or of what ends an answer is none of"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_in_one_line(bundle_copy, capsys, damage, message):
    sign(bundle_copy, damage(bundle_copy) or (lambda body: None))
    assert main(["verify", str(bundle_copy), "--threads", "1"]) == 1
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("vision", "frames_per_call", 2), "encoder.onnx has frames of shape 4×96×96×3, the manifest says 2×96×96×3"),
        (("decoder", "num_kv_heads", 7), "has past_key_values.0.key of shape"),
    ],
)
def test_graphs_have_the_sizes_that_the_manifest_states(bundle_copy, change, message):
    sign(bundle_copy, state(*change)(bundle_copy))
    assert any(message in reason for reason in failures(bundle_copy).values())


def test_a_graph_that_does_not_load_is_one_line_and_the_runtimes_own_are_silent(bundle_copy, capfd):
    replace_last(bundle_copy / f"compressors/{METHOD}-b{BUDGET}.onnx", b"Gather", b"Gathex")
    sign(bundle_copy)
    assert main(["verify", str(bundle_copy), "--threads", "1"]) == 1
    printed = capfd.readouterr()
    assert "FAILED compressors/" in printed.out and "onnxruntime cannot load" in printed.out
    assert "onnxruntime" not in printed.err


@pytest.mark.parametrize(
    "damage", [scale_a_weight, scale_quantization_scales, turn_an_addition, keep_another_token, swap_two_words]
)
def test_the_hash_finds_damage_even_where_size_and_time_are_unchanged(bundle_copy, damage, capsys):
    Bundle(bundle_copy)
    before = {path: (path.stat(), path.read_bytes()) for path in bundle_copy.rglob("*") if path.is_file()}
    damage(bundle_copy)
    (changed,) = [path for path, (_, content) in before.items() if path.read_bytes() != content]
    os.utime(changed, ns=(before[changed][0].st_atime_ns, before[changed][0].st_mtime_ns))
    assert main(["verify", str(bundle_copy)]) == 1
    assert changed.name in capsys.readouterr().err


def test_a_changed_line_of_the_manifest_is_found(bundle_copy):
    path = bundle_copy / "manifest.json"
    path.write_text(path.read_text().replace('"positions": "original"', '"positions": "contiguous"'))
    with pytest.raises(BundleError, match=r"manifest\.json was altered"):
        Bundle(bundle_copy)


def test_another_answer_passes_where_the_model_is_undecided(bundle_copy):
    change_answer = change_the_answer(bundle_copy)

    def undecided(body):
        change_answer(body)
        body["verification"]["answer_margin"] = 1e-4

    sign(bundle_copy, undecided)
    (answer,) = [check for check in Verifier(Bundle(bundle_copy), threads=1).run() if check.part == "answer"]
    assert answer.passed and "undecided" in answer.reason


def test_more_may_be_decided_otherwise_where_the_decisions_are_not_firm(bundle_copy):
    keep_another_token(bundle_copy)
    content = References.read(bundle_copy / "references.npz")
    ((key, method),) = content.methods.items()
    firm = replace(method, stability=np.full((len(NOISE_LEVELS), 2), 0.9))
    (bundle_copy / "references.npz").write_bytes(replace(content, methods={key: firm}).to_bytes())
    sign(bundle_copy)
    (check,) = [c for c in Verifier(Bundle(bundle_copy), threads=1).run() if c.part.startswith("compressors/")]
    assert check.overlap < 1 and check.overlap > check.least_overlap and "of the positions" not in check.reason


def test_tokens_may_differ_as_far_as_little_noise_moves_them(bundle_copy):
    content = References.read(bundle_copy / "references.npz")
    ((key, method),) = content.methods.items()
    tokens = method.tokens.copy()
    tokens[0] += 0.02 * np.abs(tokens).max()
    for drift, passed in ((0.0, False), (0.01, False), (0.03, True)):
        moved = replace(method, tokens=tokens, drift=np.full(len(NOISE_LEVELS), drift))
        (bundle_copy / "references.npz").write_bytes(replace(content, methods={key: moved}).to_bytes())
        sign(bundle_copy)
        (check,) = [c for c in Verifier(Bundle(bundle_copy), threads=1).run() if c.part.startswith("compressors/")]
        assert check.passed is passed and check.worst_difference == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("stability", "noise", "least"),
    [
        ([(1, 1)] * 4, 1e-2, (1.0, 1.0)),  # blind to the video: nothing may differ
        ([(1, 1), (1, 0.9), (0.8, 0.6), (0.3, 0.1)], 1e-7, (0.95, 0.9)),
        ([(1, 1), (1, 0.9), (0.8, 0.6), (0.3, 0.1)], 5e-4, (0.75, 0.5)),
        ([(1, 1), (1, 0.9), (0.8, 0.6), (0.3, 0.1)], 1.0, (0.25, 0.0)),
    ],
)
def test_how_much_may_be_decided_otherwise(stability, noise, least):
    firm = np.array(stability, np.float32)
    method = MethodReference(np.arange(100), np.zeros((2, 100)), np.zeros((100, 4)), firm, np.zeros(4))
    assert firmness(method, noise) == pytest.approx(least, abs=1e-6)
    few = replace(method, positions=np.arange(10))
    assert firmness(few, noise)[0] == pytest.approx(least[0] if least[0] == 1 else least[0] - 0.15, abs=1e-6)


def test_the_command_reports_and_fails(bundle_copy, capsys):
    assert main(["verify", str(bundle_copy), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "encoder.onnx" in out and out.splitlines()[-1].startswith("PASSED: ")
    change_the_answer(bundle_copy)
    turn_an_addition(bundle_copy)
    sign(bundle_copy)
    assert main(["verify", str(bundle_copy), "--backend", "onnxruntime", "--threads", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False and report["device"] == "cpu" and report["runtime"].startswith("onnxruntime ")
    encoder = [check for check in report["checks"] if check["part"] == "encoder.onnx"]
    failed = [check for check in encoder if check["status"] == "FAILED"]
    assert failed and all(check["worst_difference"] > check["tolerance"] for check in failed)


def test_a_bundle_without_references_says_so(bundle_copy, capsys):
    def drop(body):
        body["verification"] = None

    sign(bundle_copy, drop)
    assert main(["verify", str(bundle_copy)]) == 1
    assert "export it again" in capsys.readouterr().err


def test_missing_references_are_named(bundle_copy, capsys):
    (bundle_copy / "references.npz").unlink()
    assert main(["verify", str(bundle_copy)]) == 1
    assert "references.npz is missing" in capsys.readouterr().err


def test_an_unknown_device_or_backend_is_refused(pristine, tmp_path, capsys):
    folder = shutil.copytree(pristine, tmp_path / "bundle")
    assert main(["verify", str(folder), "--device", "abacus"]) == 1
    assert "one of: cpu" in capsys.readouterr().err
    assert main(["verify", str(folder), "--backend", "abacus"]) == 1
    assert "unknown backend 'abacus': one of: onnxruntime" in capsys.readouterr().err


def test_the_backend_that_was_asked_for_runs_the_graphs(pristine, tmp_path, monkeypatch, capsys):
    class Abacus(OnnxRuntimeBackend):
        def __init__(self, device, threads):
            super().__init__(device, threads)
            self.runtime = "abacus 1.0"

    monkeypatch.setitem(BACKENDS, "abacus", "Abacus")
    monkeypatch.setitem(sys.modules, "edgevtc.backends.abacus", SimpleNamespace(Abacus=Abacus))
    folder = shutil.copytree(pristine, tmp_path / "bundle")
    assert main(["verify", str(folder), "--backend", "abacus", "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == "abacus 1.0"


@pytest.mark.parametrize(
    ("segments", "valid"),
    [([0, 0, 1, 2], True), ([0, 0, 0, 0], True), ([1, 1, 2, 2], False), ([0, 2, 2, 3], False), ([0, 1, 0, 1], False)],
)
def test_segments_are_runs_of_frames(segments, valid):
    assert is_division(np.array(segments, np.int32), np.zeros((4, 9), np.int32)) == valid
    assert not is_division(np.array(segments, np.int32), np.zeros((5, 9), np.int32))


@pytest.mark.parametrize(
    ("positions", "valid"),
    [([0, 2], True), ([2, 0], False), ([0, 0], False), ([0, 1], False), ([0, 4], False), ([0, -2], False)],
)
def test_a_slot_stands_where_its_own_token_is(positions, valid):
    assignment = np.array([[0, 0], [1, -1]], np.int32)
    assert stands_for_itself(np.array(positions, np.int32), assignment) == valid
