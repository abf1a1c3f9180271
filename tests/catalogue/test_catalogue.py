from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from edgevtc.catalogue import DeviceProfile, ModelRecipe, device_names, device_profile, model_names, model_recipe
from edgevtc.errors import ConfigError
from edgevtc.methods import method_spec

ROOT = Path(__file__).parents[2]

RECIPE = """
name = "mine"
family = "llava_onevision"
source = "someone/something"
revision = "main"
licence = "MIT"
num_frames = 8
frames_per_call = 2
methods = ["uniform"]
retention_ratios = [0.5, 1]
weight_formats = ["int8"]
"""

PROFILE = """
name = "mine"
description = "a board"
tool = "tensorrt"
source = "its data sheet"
compute_capability = "8.7"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", model_names())
def test_each_recipe_of_the_catalogue_is_valid_and_named_as_its_file(name: str) -> None:
    recipe = model_recipe(name)
    assert recipe.name == name
    assert recipe.retention_ratios == tuple(sorted(recipe.retention_ratios, reverse=True))
    assert all(method_spec(method).name == method for method in recipe.methods)


@pytest.mark.parametrize("name", device_names())
def test_each_profile_of_the_catalogue_is_valid_and_named_as_its_file(name: str) -> None:
    profile = device_profile(name)
    assert profile.name == name
    # A memory without its speed, or the reverse, is of no use to a planner.
    assert (profile.memory_gb is None) == (profile.bandwidth_gb_s is None)


def test_the_catalogues_hold_the_files_of_the_two_folders() -> None:
    assert model_names() == sorted(file.stem for file in (ROOT / "export").glob("*.toml"))
    assert device_names() == sorted(file.stem for file in (ROOT / "engines").glob("*.toml"))
    assert {"embedded", "embedded-aware", "llava-onevision-0.5b"} <= set(model_names())
    assert {"cpu", "rtx-4060", "jetson-orin-nano-8gb"} <= set(device_names())


@pytest.mark.parametrize(("folder", "kind"), [("export", ModelRecipe), ("engines", DeviceProfile)])
def test_the_readme_explains_every_key(folder: str, kind: type) -> None:
    keys = {field.name for field in fields(kind)}
    rows = re.findall(r"^\| `([\w.]+)` \|", (ROOT / folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {row.partition(".")[0] for row in rows} == keys


def test_a_path_reads_a_file_of_ones_own(tmp_path: Path) -> None:
    recipe = model_recipe(write(tmp_path, RECIPE + '[prompt]\nexamples = ["what changed"]\n'))
    assert (recipe.name, recipe.num_frames, recipe.retention_ratios) == ("mine", 8, (0.5, 1.0))
    assert recipe.prompt.examples == ("what changed",)
    assert recipe.positions is None
    assert device_profile(str(write(tmp_path, PROFILE))).compute_capability == "8.7"


def test_a_recipe_sets_parameters_of_its_methods(tmp_path: Path) -> None:
    text = RECIPE.replace('["uniform"]', '["infomerge", "random"]')
    recipe = model_recipe(write(tmp_path, text + "[parameters.infomerge]\npenalty = 10.0\n"))
    assert recipe.parameters == {"infomerge": {"penalty": 10.0}}
    with pytest.raises(ConfigError, match=r"mine\.toml.*seed=-1 is out of range: give a value from 0 to inf"):
        model_recipe(write(tmp_path, text + "[parameters.random]\nseed = -1\n"))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "mine"', "", "'name' is missing"),
        ("num_frames = 8", 'num_frames = "8"', "num_frames: '8' is not of type int"),
        ("num_frames = 8", "num_frames = true", "num_frames: True is not of type int"),
        ("num_frames = 8", "num_frames = 0", "num_frames: 0"),
        ("num_frames = 8", "num_frame = 8", "unknown field 'num_frame'"),
        ("frames_per_call = 2", "frames_per_call = 9", "frames_per_call: 9 is not valid: give 1 to 8"),
        ('methods = ["uniform"]', 'methods = "uniform"', "methods: 'uniform' is not of type list of str"),
        ('methods = ["uniform"]', 'methods = ["unifrom"]', "methods: unknown method 'unifrom'"),
        ('methods = ["uniform"]', "methods = []", "methods is empty"),
        ("[0.5, 1]", "[0.0]", "retention_ratios: 0.0"),
        ("[0.5, 1]", "[1.5]", "retention_ratios: 1.5"),
        ("[0.5, 1]", "[nan]", "retention_ratios: nan"),
        ('licence = "MIT"', 'licence = "MIT"\npositions = "new"', "positions: 'new'"),
        ('licence = "MIT"', 'licence = "MIT"\nsaliency = "norm"', "saliency: 'norm' is not valid: one of: siglip_head"),
        ('licence = "MIT"', 'licence = "MIT"\nframe_features = "norm"', "frame_features: 'norm'"),
        ('licence = "MIT"', 'licence = "MIT"\ndtype = "float64"', "dtype: 'float64' is not valid: one of: float32"),
        ('licence = "MIT"', 'licence = "MIT"\nencoder_format = "int8"', "encoder_format: 'int8'"),
        ('["int8"]', '["int8", "int2"]', "weight_formats: 'int2' is not valid: one of: fp32, int8, w8a8, int4"),
        ('"llava_onevision"', '"llava"', "family: 'llava' is not valid: one of: llava_onevision"),
        ('licence = "MIT"', 'licence = "MIT"\nmax_positions = 0', "max_positions: 0"),
        ('licence = "MIT"', 'licence = "MIT"\nprompt = ["a"]', "prompt: expected named fields"),
        ('licence = "MIT"', 'licence = "MIT"\nprompt = {example = ["a"]}', "prompt: unknown field 'example'"),
        (
            'licence = "MIT"',
            'licence = "MIT"\nparameters.tome = {}',
            "parameters: 'tome' is none of the recipe's methods",
        ),
        ('licence = "MIT"', 'licence = "MIT"\nparameters.uniform.tau = 1', "uniform has no parameter 'tau'"),
        ('licence = "MIT"', "licence = MIT", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in RECIPE
    file = write(tmp_path, RECIPE.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        model_recipe(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and named in message and "\n" not in message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('tool = "tensorrt"', 'tool = "tensorflow"', "tool: 'tensorflow' is not valid: one of: onnxruntime"),
        ('compute_capability = "8.7"', "compute_capability = 8.7", "compute_capability: 8.7 is not of type str"),
        ('compute_capability = "8.7"', 'compute_capability = "sm_87"', "compute_capability: 'sm_87'"),
        ('compute_capability = "8.7"', "", "compute_capability: tensorrt builds for one"),
        ('compute_capability = "8.7"', 'compute_capability = "8.7"\nmemory_gb = -1', "memory_gb: -1.0"),
        ('compute_capability = "8.7"', 'compute_capability = "8.7"\npython = "3"', "python: '3'"),
        ('compute_capability = "8.7"', 'compute_capability = "8.7"\nnotes = "x"', "notes: 'x' is not of type list"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in PROFILE
    file = write(tmp_path, PROFILE.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        device_profile(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and named in message and "\n" not in message


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'gpt'.*embedded, embedded-aware, llava-onevision-0\.5b"):
        model_recipe("gpt")
    with pytest.raises(ConfigError, match=r"'rtx-1'.*cpu.*rtx-4060"):
        device_profile("rtx-1")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml does not exist"):
        model_recipe(tmp_path / "nothing.toml")
