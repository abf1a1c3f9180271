"""The bundle in the package: each of its methods answers, and the package stays small enough to install."""

from __future__ import annotations

import zipfile

from edgevtc import Runner
from edgevtc.bundle import Bundle, embedded_path
from edgevtc.cli import main
from edgevtc.measure.verify import answer_limit

#: Bytes a wheel may have.
WHEEL_LIMIT = 25_000_000


def test_every_method_answers_a_question_about_a_sample(samples, capsys):
    methods = Runner().bundle.manifest.methods
    names = list(dict.fromkeys(entry.name for entry in methods))
    said = {}
    for index, name in enumerate(names):
        budgets = [entry.budget for entry in methods if entry.name == name]
        budget = budgets[index % len(budgets)]  # so that each budget has its turn
        words = ["--method", name, "--budget", str(budget), "--threads", "1", "--json"]
        assert main(["ask", str(samples / "corridor.mp4"), "what shape is the blue object", *words]) == 0
        report = capsys.readouterr().out
        assert f'"tokens_kept": {budget}' in report
        said[name] = report
    assert all('"answer": "' in report and '"answer": ""' not in report for report in said.values())


def test_a_device_is_held_to_its_answer():
    """Verify lets another answer pass where the model itself is undecided: not about this question."""
    manifest = Bundle().manifest
    assert manifest.verification is not None
    assert manifest.verification.answer_margin > answer_limit(manifest) > 0


def test_the_package_is_small_enough_to_install(tmp_path):
    package = embedded_path().parent.parent
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(package.parent))
    assert (tmp_path / "package.zip").stat().st_size < WHEEL_LIMIT
