"""A bundle opens only as it was written, and appears whole or not at all."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from edgevtc.bundle import Bundle, BundleWriter, Manifest, embedded_path
from edgevtc.bundle.reader import file_sha256
from edgevtc.bundle.writer import abandoned, hidden_sibling
from edgevtc.catalogue.recipe import VALUES
from edgevtc.errors import BundleError, ConfigError, ExportError
from edgevtc.loaded import LoadedBundle


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
    with pytest.raises(BundleError, match=rf"{copy}: weights/{path.name} was altered \(.*; \S+\.onnx reads it\)"):
        Bundle(copy)


def test_a_byte_changed_after_a_good_opening_is_found(copy):
    Bundle(copy)
    path = copy / "chat_template.jinja"
    path.write_bytes(path.read_bytes().replace(b"video", b"vodka", 1))
    with pytest.raises(BundleError, match="was altered"):
        Bundle(copy)


def test_a_byte_changed_in_place_is_found_though_its_time_was_set_back(copy):
    Bundle(copy)
    path = copy / "chat_template.jinja"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
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
        (lambda b: b.edit(lambda m: m["files"].update({"a\0b": m["files"]["encoder.onnx"]})), "leads out"),
        (lambda b: b.link("encoder.onnx"), "link that leads out"),
        (lambda b: b.write("manifest.json", b"\xff\xfe\0"), r"manifest\.json is not UTF-8"),
        (lambda b: b.write("manifest.json", "[" * 100_000), "manifest.json is not JSON"),
        (
            lambda b: b.edit(lambda m: m["decoder"].update(graphs={})),
            "decoder: graphs: {} is not valid: give at least one",
        ),
        (
            lambda b: b.edit(lambda m: m["decoder"]["graphs"].update(fp7="x")),
            "graphs: 'fp7' is not valid: one of: fp32",
        ),
        (lambda b: b.edit(lambda m: m["decoder"].update(head_dim=0)), "head_dim: 0 is not valid: give 1 or more"),
        (lambda b: b.edit(lambda m: m["decoder"].update(num_kv_heads=-1)), "num_kv_heads: -1 is not valid"),
        (lambda b: b.edit(lambda m: m["decoder"].update(kv_update="copy")), "kv_update: 'copy' is not valid"),
        (
            lambda b: b.edit(lambda m: m["decoder"]["embeddings"].update(dtype="x")),
            "embeddings: dtype: 'x' is not valid",
        ),
        (lambda b: b.edit(lambda m: m["vision"].update(frames_per_call=0)), "frames_per_call: 0 is not valid"),
        (lambda b: b.edit(lambda m: m["vision"].update(saliency="none")), "saliency: 'none' is not valid"),
        (lambda b: b.edit(lambda m: m["methods"][0].update(budget=0)), "budget: 0 is not valid: give 1 or more"),
        (lambda b: b.edit(lambda m: m["methods"][0].update(retention_ratio=1.5)), "retention_ratio: 1.5 is not valid"),
        (lambda b: b.edit(lambda m: m.update(methods=[])), r"methods: \[\] is not valid: give at least one"),
    ],
)
def test_a_damaged_bundle_says_what_is_wrong(copy, damage, message):
    class Damage:
        def unlink(self, name):
            (copy / name).unlink()

        def write(self, name, content):
            (copy / name).write_bytes(content.encode() if isinstance(content, str) else content)

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


def test_a_manifest_may_say_all_that_an_export_can_make():
    manifest = Bundle().manifest
    for field in ("saliency", "frame_features"):
        for value in (*VALUES[field], ""):
            changed = replace(manifest, vision=replace(manifest.vision, **{field: value}))
            assert Manifest.from_json(changed.to_json()) == changed
    for field, name in (("compute_dtype", "dtype"), ("weight_format", "encoder_format")):
        for value in VALUES[name]:
            changed = replace(manifest, vision=replace(manifest.vision, **{field: value}))
            assert Manifest.from_json(changed.to_json()) == changed
    graphs = dict.fromkeys(VALUES["weight_formats"], "decoder/x.onnx")
    changed = replace(manifest, decoder=replace(manifest.decoder, graphs=graphs))
    assert Manifest.from_json(changed.to_json()) == changed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("generation_config.json", b"[]", "names no eos_token_id"),
        ("generation_config.json", b"{", "is not JSON"),
        ("generation_config.json", b"[" * 100_000, "is not JSON"),
        ("generation_config.json", b'{"eos_token_id": [[1]]}', "no numbers as eos_token_id and max_new_tokens"),
        ("generation_config.json", b'{"eos_token_id": 1, "max_new_tokens": -5}', "no numbers as eos_token_id"),
        ("chat_template.jinja", b"\xff", "is not UTF-8"),
    ],
)
def test_a_text_that_is_none_is_told_in_one_line(copy, name, content, message):
    (copy / name).write_bytes(content)
    rewrite(copy, lambda body: body["files"][name].update(size=len(content), sha256=file_sha256(copy / name)))
    with pytest.raises(BundleError, match=rf"{copy / name} .*{message}|{copy / name} {message}") as error:
        LoadedBundle(copy, threads=1)
    assert "\n" not in str(error.value)


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

    def refill(self, writer, bundle):
        for name in bundle.manifest.files:
            writer.file(name, bundle.file(name).read_bytes())
        self.finish(writer, bundle.manifest)

    def finish(self, writer, manifest):
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

    @pytest.mark.parametrize(
        "write",
        [
            lambda writer, large: writer.file("large", large.read_bytes()),
            lambda writer, large: writer.tensor(np.arange(5000)),
            lambda writer, large: writer.adopt(large, "large", link=False),
            lambda writer, large: writer.draft(lambda files: Bundle().manifest),
        ],
    )
    def test_a_disk_that_takes_no_more_is_told_in_one_line(self, tmp_path, write):
        (tmp_path / "large").write_bytes(bytes(20_000))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with BundleWriter(tmp_path / "out") as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
            try:
                with pytest.raises(
                    ExportError, match=r"cannot write .*\(File too large\): finished parts are kept"
                ) as error:
                    write(writer, tmp_path / "large")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(writer.folder) in str(error.value) and "\n" not in str(error.value)
        assert os.listdir(tmp_path) == ["large"]

    def test_the_old_bundle_stays_where_the_new_one_cannot_be_moved(self, tmp_path, monkeypatch):
        bundle = write_tiny_bundle(tmp_path / "out")
        old, rename = (tmp_path / "out" / "manifest.json").stat().st_ino, Path.rename

        def refuse(path, target):
            if path.name.startswith(".out.partial-") and not path.name.endswith("-old"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with (
            pytest.raises(ExportError, match=r"cannot write .*Input/output error"),
            BundleWriter(tmp_path / "out", overwrite=True) as writer,
        ):
            self.refill(writer, bundle)
        assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out" / "manifest.json").stat().st_ino == old

    @pytest.mark.parametrize("there", [False, True])
    def test_a_link_leads_to_the_bundle_and_stays(self, tmp_path, there):
        (tmp_path / "links").mkdir()
        link = tmp_path / "links" / "link"
        link.symlink_to(tmp_path / "disk" / "out")
        if there:
            bundle = write_tiny_bundle(tmp_path / "disk" / "out")
            with pytest.raises(ExportError, match="--overwrite"):
                BundleWriter(link)
            with BundleWriter(link, overwrite=True) as writer:
                self.refill(writer, bundle)
        else:
            write_tiny_bundle(link)
        assert link.is_symlink() and Bundle(link).manifest
        assert os.listdir(tmp_path / "disk") == ["out"] and os.listdir(tmp_path / "links") == ["link"]

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("n" * 250, "give one of at most 215 bytes"),
            ("", "does not end in a name"),
            ("new/..", "does not end in a name"),
            ("file/out", "is no folder"),
            (f"{'n' * 300}/out", "File name too long"),
        ],
    )
    def test_what_cannot_be_written_is_said_before_anything_is(self, tmp_path, monkeypatch, output, message):
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("")
        with pytest.raises(ExportError, match=message):
            BundleWriter(output)
        assert os.listdir(tmp_path) == ["file"]

    def test_a_leftover_goes_although_its_process_number_is_in_use_again(self, tmp_path):
        with subprocess.Popen(["sleep", "60"]) as other:
            program = "import sys; from edgevtc.bundle.writer import started_at; print(started_at(int(sys.argv[1])))"
            command = [sys.executable, "-c", program, str(other.pid)]
            started = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            names = [f".out.partial-{other.pid}.{start}" for start in (started, started - 1)]
            for name in names:
                (tmp_path / name).mkdir()
            assert [folder.name for folder in abandoned(tmp_path / "out", "partial")] == [names[1]]
            other.kill()
        assert len(abandoned(tmp_path / "out", "partial")) == 2
        hidden_sibling(tmp_path / "out", "partial").mkdir()
        assert len(abandoned(tmp_path / "out", "partial")) == 3

    def test_an_incomplete_bundle_is_not_finished(self, tmp_path):
        with pytest.raises(ExportError, match=r"own check.*encoder\.onnx"), BundleWriter(tmp_path / "out") as writer:
            manifest = self.fill(writer)
            (writer.folder / "encoder.onnx").unlink()
            writer.finish(lambda files: manifest)
        assert os.listdir(tmp_path) == []
