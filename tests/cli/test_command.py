import argparse

from edgevtc.cli.command import Command, run_command
from edgevtc.errors import VideoError


class Failing(Command):
    """Fails."""

    name = "failing"

    def add_arguments(self, parser):
        pass

    def run(self, args):
        raise VideoError("new\nline\x1b[31mré d.mp4 is empty")


def test_names_of_files_reach_the_terminal_as_one_line_of_plain_text(capsys):
    assert run_command(Failing(), argparse.Namespace()) == 1
    assert capsys.readouterr().err == "edgevtc: error: new\\nline\\x1b[31mré d.mp4 is empty\n"
