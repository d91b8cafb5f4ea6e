"""Shell completion of `avel`: a script for bash, fish, tcsh or zsh, written by shtab."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import NamedTuple

import shtab

from distributed_avel.config import CONFIG, Config, built_in_configs, option_choices

SHELLS = tuple(sorted(shtab.SUPPORTED_SHELLS))


class CommandOptions(NamedTuple):
    """Options of a command.

    Args:
        summary: What the command does.
        options: Parser of the options that belong to this command alone.
        settings: Class of its settings, if it has any.
    """

    summary: str
    options: ArgumentParser
    settings: type[Config] | None


def completion_script(shell: str, commands: Mapping[str, CommandOptions]) -> str:
    """Return the completion script of a shell.

    Args:
        shell: One of `SHELLS`.
        commands: Options of each command.
    """
    avel = ArgumentParser(prog="avel")
    avel.add_argument("--version", action="store_true")
    subcommands = avel.add_subparsers(dest="command")
    for name, command in commands.items():  # shtab leaves out commands without help
        parser = subcommands.add_parser(name, parents=[command.options], help=command.summary)
        if command.settings is not None:
            _add_settings(parser, command.settings)
    return shtab.complete(avel, shell=shell)


def _add_settings(parser: ArgumentParser, settings: type[Config]) -> None:
    config = parser.add_argument(f"--{CONFIG}", metavar="FILE")
    config.choices = built_in_configs()
    for name, choices in option_choices(settings):
        if choices is None:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", choices=choices or None)
