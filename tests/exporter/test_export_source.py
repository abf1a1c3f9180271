"""Where checkpoints come from: folders, recipes, and a Hub that here is a folder tree and never the network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import SafetensorsFileMetadata, TensorInfo, filter_repo_objects

import edgevtc
from edgevtc.catalogue.recipe import VALUES
from edgevtc.cli import main
from edgevtc.errors import ConfigError, ExportError
from edgevtc.exporter import hub as hub_module
from edgevtc.exporter import plan
from edgevtc.exporter.decoder import WEIGHT_FORMATS
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.precision import DTYPES
from edgevtc.exporter.prepare import plan_bundle
from edgevtc.exporter.quantize_encoder import ENCODER_FORMATS
from edgevtc.exporter.source import find_checkpoint
from edgevtc.methods import POSITION_MODES
from edgevtc.models import model_types
from edgevtc.models.base import FRAME_FEATURE_SOURCES, SALIENCY_SOURCES

pytestmark = pytest.mark.export

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = '{"model_type": "llava_onevision"}'
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


class FakeHub:
    """Stands for `snapshot_download`: a cache of snapshots, and a record of what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.size, self.failure = root, [], None, None
        self.files: dict[str, str | bytes] = {"config.json": CONFIG, "model.safetensors": "", "README.md": CARD}

    @property
    def fetched(self) -> list[str]:
        return sorted(path.name for path in self.root.rglob("*.*") if path.is_file())

    @property
    def weights(self) -> list[str]:
        return [name for name in self.fetched if name.endswith(".safetensors")]

    def holds(self, folder: Path) -> None:
        """Take over a checkpoint's files."""
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def __call__(self, repository, *, revision, token, allow_patterns, ignore_patterns, dry_run=False):
        if self.failure is not None:
            raise self.failure
        self.calls.append({"repository": repository, "revision": revision, "token": token, "dry_run": dry_run})
        folder = self.root / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
        files = filter_repo_objects(self.files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        if dry_run:
            return [
                SimpleNamespace(
                    filename=name,
                    file_size=self.size or len(self.files[name]),
                    will_download=not (folder / name).exists(),
                    local_path=str(folder / name),
                    commit_hash=COMMIT,
                )
                for name in files
            ]
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            content = self.files[name]
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(folder)

    def header(self, repository, filename, *, revision, token) -> SafetensorsFileMetadata:
        """What `parse_safetensors_file_metadata` makes of the first bytes."""
        assert revision == COMMIT
        content = self.files[filename]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: TensorInfo(**{**value, "data_offsets": tuple(value["data_offsets"])})
            for name, value in header.items()
        }
        return SafetensorsFileMetadata(metadata=metadata, tensors=tensors)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    monkeypatch.setattr(huggingface_hub, "parse_safetensors_file_metadata", fake.header)
    return fake


def test_a_repository_is_pinned_to_its_commit_and_brings_its_licence(hub):
    folder, options = find_checkpoint("someone/llava-tiny", revision="v1.0", token="secret")
    assert folder.name == COMMIT and (folder / "config.json").is_file()
    assert options == ExportOptions(name="llava-tiny", revision=COMMIT, licence="apache-2.0")
    expected = {"repository": "someone/llava-tiny", "revision": "v1.0", "token": "secret"}
    assert hub.calls == [{**expected, "dry_run": True}, {**expected, "dry_run": False}]


def test_a_recipe_is_pinned_too_and_its_revision_can_be_overridden(hub):
    _, options = find_checkpoint("llava-onevision-0.5b")
    assert hub.calls[-1]["repository"] == "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    assert (options.name, options.revision, options.num_frames) == ("llava-onevision-0.5b", COMMIT, 32)
    find_checkpoint("llava-onevision-0.5b", revision="refs/pr/1")
    assert hub.calls[-1]["revision"] == "refs/pr/1"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "apache-2.0"),
        ("No metadata here.\n", ""),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\ntags: [video]\n---\n", ""),
    ],
)
def test_a_folder_brings_the_licence_of_its_card(tmp_path, card, licence):
    (tmp_path / "config.json").write_text("{}")
    assert find_checkpoint(str(tmp_path)) == (tmp_path, ExportOptions())
    (tmp_path / "README.md").write_text(card)
    assert find_checkpoint(str(tmp_path))[1].licence == licence


def test_a_damaged_card_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ExportError, match="valid YAML"):
        find_checkpoint(str(tmp_path))


def response() -> SimpleNamespace:
    return SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (lambda: errors.RepositoryNotFoundError("no", response=response()), "none of this name, or it is private"),
        (lambda: errors.GatedRepoError("no", response=response()), "give --token or set HF_TOKEN"),
        (lambda: errors.RevisionNotFoundError("no", response=response()), "at revision v9 .* no such revision"),
        (lambda: errors.LocalEntryNotFoundError("no"), "cannot be reached .* give its folder"),
        (lambda: OSError("disk on fire\nand more"), "disk on fire; try again, .* or download it elsewhere"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_one_line(hub, failure, message):
    hub.failure = failure()
    with pytest.raises(ExportError, match=message) as raised:
        find_checkpoint("someone/model", revision="v9")
    assert "\n" not in str(raised.value) and raised.value.__cause__ is None


def test_without_a_connection_the_cache_serves(hub, monkeypatch):
    said: list[str] = []
    causes = [None, failed_with(503)]

    def offline(*arguments, dry_run=False, **options):
        if dry_run:
            raise errors.DryRunError("no connection") from causes.pop(0)
        return hub(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    for reason in ("cannot be reached", "answers 503"):
        assert find_checkpoint("someone/model", say=said.append)[1].revision == COMMIT
        assert said.pop() == f"the Hub {reason}: taking someone/model as the local cache holds it, {COMMIT}"
    assert not said


def test_pickled_weights_are_neither_fetched_nor_read(hub, tmp_path):
    hub.files = {"config.json": "{}", "pytorch_model.bin": "pickle"}
    with pytest.raises(ExportError, match="unpickling runs code"):
        find_checkpoint("someone/model")
    assert not list(hub.root.rglob("*.bin"))


def test_a_download_that_does_not_fit_is_not_begun(hub, monkeypatch):
    hub.size = 10**18
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 * 10**9))
    with pytest.raises(ExportError, match=r"takes 3\.0 EB to download, .* 5\.0 GB free"):
        find_checkpoint("someone/model")
    assert [call["dry_run"] for call in hub.calls] == [True]


def planned(capsys, *words: str) -> dict:
    assert main(["export", *words, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_export_is_planned_from_headers_and_no_weight_is_fetched(
    hub, headless_folder, tiny_folder, tmp_path, capsys
):
    options = ["--method", "infomerge", "-o", str(tmp_path / "out")]
    hub.holds(headless_folder)
    asked = ["--siglip-head", str(tiny_folder)]
    expected = planned(capsys, str(headless_folder), *options, *asked)
    assert planned(capsys, "someone/model", *options, *asked) == expected
    assert "config.json" in hub.fetched and not hub.weights
    # What the cache has is read from there.
    folder, _ = find_checkpoint("someone/model")
    assert planned(capsys, "someone/model", *options, *asked) == expected
    assert find_checkpoint("someone/model", outlines=tmp_path / "none")[0] == folder


@pytest.mark.parametrize("what", ["memory", "disk", "option"])
def test_gigabytes_are_not_fetched_for_an_export_that_cannot_be_made(
    hub, tiny_folder, tmp_path, monkeypatch, capsys, what
):
    hub.holds(tiny_folder)
    if what == "memory":
        monkeypatch.setattr(plan, "available_memory", lambda: 1)
    elif what == "disk":
        free = sum(map(len, hub.files.values()))
        monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    words = ["--positions", "backwards"] if what == "option" else []
    assert main(["export", "someone/model", "-o", str(tmp_path / "out"), *words]) == 1
    message = {"memory": "of memory", "disk": "free: make room", "option": "backwards"}[what]
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not hub.weights
    assert not (tmp_path / "out").exists()


def test_what_fits_is_fetched_after_it_was_planned(hub, tiny_folder, tmp_path):
    hub.holds(tiny_folder)
    outlines = tmp_path / "outlines"
    outlined, options = find_checkpoint("someone/model", outlines=outlines)
    folder, fetched = find_checkpoint("someone/model")
    assert options == fetched and outlined.is_relative_to(outlines) and not folder.is_relative_to(outlines)
    assert sorted(path.name for path in outlined.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert len(hub.weights) == 3
    for name in hub.weights:
        planned, whole = ((path / name).stat() for path in (outlined, folder))
        assert planned.st_size == pytest.approx(whole.st_size, rel=0.05)
        assert 512 * planned.st_blocks < whole.st_size / 2  # a header, and a hole for the rest


def test_disk_has_to_suffice_for_the_download_and_the_bundle(hub, tiny_folder, tmp_path, monkeypatch, capsys):
    hub.holds(tiny_folder)
    words = ["export", "someone/model", "-o", str(tmp_path / "out")]
    bundle = plan_bundle(tiny_folder, find_checkpoint(str(tiny_folder))[1]).total_disk_bytes
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: SimpleNamespace(free=bundle + 1000))
    assert main(words) == 1
    assert "its checkpoint" in (error := capsys.readouterr().err) and "to download" in error
    assert not hub.weights
    # On a disk of its own the download is no burden to the bundle's.
    monkeypatch.setattr(hub_module, "cache_folder", lambda: Path("/proc"))
    monkeypatch.setattr("edgevtc.exporter.export.export_bundle", begun)
    assert main(words) == 1 and "begun" in capsys.readouterr().err


def begun(*arguments, **options):
    raise ExportError("it was begun")


def test_what_was_planned_is_fetched_though_the_branch_moves_on(hub, tiny_folder, tmp_path, monkeypatch):
    hub.holds(tiny_folder)
    monkeypatch.setattr("edgevtc.exporter.export.export_bundle", begun)
    assert main(["export", "someone/model", "--revision", "main", "-o", str(tmp_path / "out")]) == 1
    assert [call["revision"] for call in hub.calls] == ["main", "main", COMMIT, COMMIT]


def test_errors_name_the_repository_and_not_where_it_is_outlined(hub, tiny_folder, tmp_path, capsys):
    hub.holds(tiny_folder)
    hub.files["config.json"] = '{"model_type": "qwen2_vl"}'
    assert main(["export", "someone/model", "--dry-run", "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"edgevtc: error: someone/model at {COMMIT}") and "/tmp" not in error


def test_all_that_the_exporter_reads_of_a_checkpoint_is_fetched(hub, tmp_path):
    embedded = Path(edgevtc.__file__).parent / "embedded" / "checkpoint"
    hub.holds(embedded)
    folder, _ = find_checkpoint("someone/model")
    assert {path.name for path in folder.iterdir()} == {path.name for path in embedded.iterdir()}


def test_a_header_is_asked_for_again_where_the_hub_fails_for_a_while(hub, tiny_folder, tmp_path, monkeypatch):
    hub.holds(tiny_folder)
    monkeypatch.setattr(hub_module, "PAUSES_S", (0, 0))
    failures = [failed_with(503), ConnectionError("reset"), failed_with(429), failed_with(500), failed_with(503)]

    def header(*arguments, **options):
        if failures:
            raise failures.pop(0)
        return hub.header(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "parse_safetensors_file_metadata", header)
    with pytest.raises(ExportError, match="try again, for what has arrived is kept"):
        find_checkpoint("someone/model", outlines=tmp_path / "first")
    assert len(failures) == 2
    assert find_checkpoint("someone/model", outlines=tmp_path / "second")[0].is_dir() and not failures


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "is cut short: its header tells of"),
        (lambda content: content[:8] + b"x" + content[9:], "is not a safetensors file"),
        (lambda content: len(b"[1]").to_bytes(8, "little") + b"[1]", "is not a safetensors file"),
    ],
)
def test_a_damaged_header_is_named_before_its_file_is_fetched(hub, tiny_folder, tmp_path, damage, message):
    hub.holds(tiny_folder)
    name = next(name for name in hub.files if name.endswith(".safetensors"))
    hub.files[name] = damage(hub.files[name])
    with pytest.raises(ExportError, match=f"{name} of someone/model {message}"):
        find_checkpoint("someone/model", outlines=tmp_path / "outlines")


@pytest.mark.parametrize("token", ["", "hf_se\ncret", "hf_sécret", " hf_secret"])
def test_what_is_no_token_is_refused_and_not_shown(hub, token):
    with pytest.raises(ConfigError, match="--token is no token of the Hub") as error:
        find_checkpoint("someone/model", token=token)
    assert "secret" not in str(error.value) and not hub.calls


@pytest.mark.parametrize("words", [["a" * 300], ["embedded", "--siglip-head", "/tmp/" + "a" * 300]])
def test_names_that_no_file_can_have_are_one_line(tmp_path, capsys, words):
    assert main(["export", *words, "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pooling_head_comes_from_a_file_a_folder_or_a_repository(hub, tiny_folder, tmp_path):
    hub.holds(tiny_folder)
    for head in (tiny_folder, next(tiny_folder.glob("*.safetensors"))):
        assert find_checkpoint(str(tiny_folder), siglip_head=str(head))[1].siglip_head == head
    assert not hub.calls
    _, options = find_checkpoint(str(tiny_folder), token="secret", siglip_head="someone/siglip")
    assert options.siglip_head is not None and (options.siglip_head / "model.safetensors.index.json").is_file()
    assert {(call["repository"], call["token"]) for call in hub.calls} == {("someone/siglip", "secret")}
    # Model and head of one repository, in outline.
    both, options = find_checkpoint("someone/model", siglip_head="someone/model", outlines=tmp_path / "outlines")
    assert options.siglip_head == both
    with pytest.raises(ConfigError, match="no 'there/is/none' to take a pooling head from: give a file"):
        find_checkpoint("embedded", siglip_head="there/is/none")


def test_a_recipes_pooling_head_gives_way_to_the_one_asked_for(hub, tiny_folder, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\nfamily = "llava_onevision"\nsource = "embedded"\nrevision = "checkpoint"\nlicence = "MIT"\n'
        'num_frames = 16\nframes_per_call = 1\nmethods = ["uniform"]\nretention_ratios = [0.15]\n'
        'weight_formats = ["w8a8"]\nsiglip_head = "someone/siglip"\n'
    )
    hub.holds(tiny_folder)
    _, options = find_checkpoint(str(recipe), siglip_head=str(tiny_folder))
    assert options.siglip_head == tiny_folder and not hub.calls
    _, options = find_checkpoint(str(recipe))
    assert options.siglip_head is not None and hub.calls[-1]["repository"] == "someone/siglip"


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("llava-two-vision", ConfigError, "one of: embedded"),
        ("a/b/c", ConfigError, "one of: embedded"),
        ("", ConfigError, "or model '': one of: embedded"),
        ("../checkpoint", ConfigError, "one of: embedded"),
        ("missing.toml", ConfigError, "missing.toml"),
        (".", ExportError, r"no config\.json"),
    ],
)
def test_what_is_no_model_is_refused(hub, tmp_path, monkeypatch, model, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        find_checkpoint(model)
    assert not hub.calls


@pytest.mark.parametrize("model", ["embedded", "."])
def test_a_revision_and_a_token_are_of_a_repository(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="leave --revision out"):
        find_checkpoint(model, revision="v1")
    with pytest.raises(ConfigError, match="takes no token: leave --token out") as error:
        find_checkpoint(model, token="hf_secret")
    assert "hf_secret" not in str(error.value)


def test_recipes_know_the_exporters_values():
    """The catalogue is listed where the exporter is not installed, so it has them itself."""
    assert {
        "family": tuple(model_types()),
        "weight_formats": tuple(WEIGHT_FORMATS),
        "positions": POSITION_MODES,
        "saliency": SALIENCY_SOURCES,
        "frame_features": FRAME_FEATURE_SOURCES,
        "dtype": tuple(DTYPES),
        "encoder_format": tuple(ENCODER_FORMATS),
    } == VALUES


def test_a_recipe_is_of_the_family_it_says(hub):
    hub.files["config.json"] = '{"model_type": "qwen2_vl"}'
    with pytest.raises(ExportError, match=r"0\.5b: family: 'llava_onevision' is not .* which is 'qwen2_vl'"):
        find_checkpoint("llava-onevision-0.5b")


def test_what_lies_in_a_repositorys_folders_is_not_fetched(hub):
    hub.files |= {"adapter/model.safetensors": "", "onnx/config.json": ""}
    folder, _ = find_checkpoint("someone/model")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(("terminal", "shown"), [(False, [True, True]), (True, [True, False])])
def test_bars_are_for_terminals_and_never_of_the_planning_call(hub, monkeypatch, terminal, shown):
    disabled = []

    def download(*arguments, **options):
        disabled.append(huggingface_hub.utils.are_progress_bars_disabled())
        return hub(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub_module.sys, "stderr", SimpleNamespace(isatty=lambda: terminal))
    find_checkpoint("someone/model")
    assert disabled == shown and not huggingface_hub.utils.are_progress_bars_disabled()


def failed_with(status: int) -> errors.HfHubHTTPError:
    return errors.HfHubHTTPError("no", response=SimpleNamespace(headers={}, request=None, status_code=status))


def test_a_hub_that_answers_with_an_error_is_not_called_unreachable(hub):
    hub.failure = errors.LocalEntryNotFoundError("no")
    hub.failure.__cause__ = failed_with(500)
    with pytest.raises(ExportError, match="the Hub answers 500 and the local cache does not hold it"):
        find_checkpoint("someone/model")


def test_the_token_never_shows(hub, tmp_path, capsys):
    hub.failure = errors.RepositoryNotFoundError("no", response=response())
    assert main(["export", "someone/model", "--token", "hf_secret", "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "hf_secret" not in captured.out + captured.err


def test_the_command_says_in_one_line_what_it_cannot_export(hub, tmp_path, capsys):
    hub.failure = errors.LocalEntryNotFoundError("no")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_text("pickle")
    config = {"model_type": "llava_onevision", "vision_config": {}, "text_config": {}}
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(config))
    for model, said in {
        "llava-onevision-0.5b": "the Hub cannot be reached and the local cache does not hold it: give its folder",
        str(tmp_path / "pickled"): "pickled weights only, and unpickling runs code: convert them to safetensors",
    }.items():
        for words in ([], ["--dry-run"]):
            assert main(["export", model, "-o", str(tmp_path / "out"), *words]) == 1
            captured = capsys.readouterr()
            assert said in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["pickled"]


def test_the_hubs_own_cache_is_read_without_a_network(tmp_path, monkeypatch):
    """The real `snapshot_download`, offline, over a cache in the layout the Hub's library writes."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--someone--llava-tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, content in {"config.json": "{}", "model.safetensors": "", "README.md": CARD}.items():
        (snapshot / name).write_text(content)
    (tmp_path / "models--someone--llava-tiny" / "refs").mkdir()
    (tmp_path / "models--someone--llava-tiny" / "refs" / "main").write_text(COMMIT)
    folder, options = find_checkpoint("someone/llava-tiny")
    assert folder == snapshot
    assert (options.revision, options.licence) == (COMMIT, "apache-2.0")
    with pytest.raises(ExportError, match="cannot be reached and the local cache does not hold it"):
        find_checkpoint("someone/other")
