"""A bundle opens only as it was written, and appears whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgevtc.bundle import Bundle, BundleWriter, Manifest, embedded_path
from edgevtc.errors import BundleError, ConfigError, ExportError


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A private copy of the embedded bundle, and a private cache of what was verified."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(embedded_path(), tmp_path / "bundle"))


def rewrite(folder: Path, change) -> None:
    """Edit the manifest and sign it again, as only an attacker or a bug would."""
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    change(body)
    from edgevtc.bundle.manifest import digest

    (folder / "manifest.json").write_text(json.dumps({**body, "manifest_sha256": digest(body)}))


def test_the_embedded_bundle_opens():
    bundle = Bundle()
    assert bundle.manifest.model.family == "llava_onevision"
    assert bundle.manifest.tokens_total == bundle.manifest.vision.num_frames * bundle.manifest.vision.tokens_per_frame


def test_manifest_round_trip():
    manifest = Bundle().manifest
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_one_changed_byte_is_found(copy):
    path = max(copy.glob("weights/*"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{path.name} was altered"):
        Bundle(copy)


def test_a_byte_changed_after_a_good_opening_is_found(copy):
    Bundle(copy)
    path = copy / "chat_template.jinja"
    path.write_bytes(path.read_bytes().replace(b"video", b"vodka", 1))
    with pytest.raises(BundleError, match="was altered"):
        Bundle(copy)


def test_an_unchanged_bundle_is_hashed_once(copy, monkeypatch):
    Bundle(copy)
    monkeypatch.setattr("edgevtc.bundle.reader.file_sha256", lambda path: pytest.fail("hashed again"))
    Bundle(copy)


def test_an_edited_manifest_does_not_open(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"positions": "original"', '"positions": "contiguous"', 1))
    with pytest.raises(BundleError, match="altered after it was written"):
        Bundle(copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b.unlink("manifest.json"), "is not a bundle"),
        (lambda b: b.unlink("encoder.onnx"), "encoder.onnx is missing"),
        (lambda b: b.write("tokenizer.json", "{}"), "tokenizer.json has 2 bytes instead of"),
        (lambda b: b.write("manifest.json", "[]"), "schema version None"),
        (lambda b: b.write("manifest.json", "{"), "not JSON"),
        (lambda b: b.edit(lambda m: m.update(schema_version=99)), "schema version 99, this edgevtc reads 1"),
        (lambda b: b.edit(lambda m: m["vision"].pop("encoder")), "encoder"),
        (lambda b: b.edit(lambda m: m["vision"].update(num_frames="16")), "num_frames"),
        (lambda b: b.edit(lambda m: m["vision"].update(extra=1)), "extra"),
        (lambda b: b.edit(lambda m: m["methods"][0].update(positions="odd")), "one of: original, contiguous"),
        (lambda b: b.edit(lambda m: m["files"].update({"../x": m["files"]["encoder.onnx"]})), "leads out"),
        (lambda b: b.edit(lambda m: m["files"].update({"/etc/passwd": m["files"]["encoder.onnx"]})), "leads out"),
        (lambda b: b.link("encoder.onnx"), "link that leads out"),
    ],
)
def test_a_damaged_bundle_says_what_is_wrong(copy, damage, message):
    class Damage:
        def unlink(self, name):
            (copy / name).unlink()

        def write(self, name, text):
            (copy / name).write_text(text)

        def edit(self, change):
            rewrite(copy, change)

        def link(self, name):
            target = copy.parent / "elsewhere"
            shutil.move(copy / name, target)
            (copy / name).symlink_to(target)

    damage(Damage())
    with pytest.raises(BundleError, match=message) as error:
        Bundle(copy)
    assert "\n" not in str(error.value)


def test_a_missing_folder_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(BundleError, match="edgevtc export"):
        Bundle(tmp_path / "nowhere")


def test_methods_are_chosen_by_name_and_budget():
    manifest = Bundle().manifest
    entry = manifest.methods[-1]
    assert manifest.method(entry.name, entry.budget) == entry
    assert manifest.method() == manifest.methods[0]
    with pytest.raises(ConfigError, match="one of: none"):
        manifest.method("infomerg")
    budgets = ", ".join(str(entry.budget) for entry in manifest.methods if entry.name == "uniform")
    with pytest.raises(ConfigError, match=f"keeps no 7 of 576 tokens by uniform: one of: {budgets}$"):
        manifest.method("uniform", 7)
    with pytest.raises(ConfigError, match=f"keeps no 7 of 576 tokens: one of: 576, {budgets}$"):
        manifest.method(budget=7)


class TestWriter:
    def fill(self, writer):
        manifest = Bundle().manifest
        for name in manifest.files:
            writer.file(name, (embedded_path() / name).read_bytes())
        return manifest

    def finish(self, writer, manifest):
        from dataclasses import replace

        return writer.finish(lambda files: replace(manifest, files=files))

    def test_equal_tensors_are_stored_once(self, tmp_path):
        with BundleWriter(tmp_path / "out") as writer:
            first, second = writer.tensor(np.arange(6.0).reshape(2, 3)), writer.tensor(np.arange(6.0))
            assert first.file == second.file and first.shape == (2, 3)
            assert len(list((writer.folder / "weights").iterdir())) == 1

    def test_a_finished_bundle_stands_alone(self, tmp_path):
        with BundleWriter(tmp_path / "out") as writer:
            bundle = self.finish(writer, self.fill(writer))
        assert bundle.path == tmp_path / "out"
        assert os.listdir(tmp_path) == ["out"]

    def test_an_error_leaves_nothing(self, tmp_path):
        with pytest.raises(RuntimeError), BundleWriter(tmp_path / "out") as writer:
            self.fill(writer)
            raise RuntimeError
        assert os.listdir(tmp_path) == []

    def test_an_existing_bundle_is_replaced_only_when_asked(self, tmp_path):
        with BundleWriter(tmp_path / "out") as writer:
            self.finish(writer, self.fill(writer))
        with pytest.raises(ExportError, match="--overwrite"):
            BundleWriter(tmp_path / "out")
        with BundleWriter(tmp_path / "out", overwrite=True) as writer:
            self.finish(writer, self.fill(writer))
        assert os.listdir(tmp_path) == ["out"]

    def test_what_is_no_bundle_is_never_replaced(self, tmp_path):
        (tmp_path / "photos").mkdir()
        with pytest.raises(ExportError, match="is no bundle"):
            BundleWriter(tmp_path / "photos", overwrite=True)

    def test_a_killed_export_leaves_no_bundle_and_the_next_one_clears_up(self, tmp_path):
        program = (
            "import os, signal, sys\n"
            "from edgevtc.bundle import BundleWriter\n"
            "with BundleWriter(sys.argv[1]) as writer:\n"
            "    writer.file('encoder.onnx', b'half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], check=False)
        assert done.returncode == -9
        assert not (tmp_path / "out").exists() and len(os.listdir(tmp_path)) == 1
        with BundleWriter(tmp_path / "out") as writer:
            self.finish(writer, self.fill(writer))
        assert os.listdir(tmp_path) == ["out"]

    def test_a_bundle_lost_between_the_two_renames_comes_back(self, tmp_path):
        with BundleWriter(tmp_path / "out") as writer:
            self.finish(writer, self.fill(writer))
        done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        (tmp_path / "out").rename(tmp_path / f".out.partial-{int(done.stdout)}-old")
        with pytest.raises(RuntimeError), BundleWriter(tmp_path / "out"):
            raise RuntimeError
        assert Bundle(tmp_path / "out").manifest

    def test_an_incomplete_bundle_is_not_finished(self, tmp_path):
        with pytest.raises(ExportError, match=r"own check.*encoder\.onnx"), BundleWriter(tmp_path / "out") as writer:
            manifest = self.fill(writer)
            (writer.folder / "encoder.onnx").unlink()
            writer.finish(lambda files: manifest)
        assert os.listdir(tmp_path) == []
