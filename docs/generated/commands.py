"""Tables of `docs/commands.md`: commands and their options, exit codes and fixed variables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator

from blur_es.cli.output import FAILED, INTERRUPTED, WRONG_INPUT
from blur_es.cli.parser import make_parser
from blur_es.util.environment import NEUTRAL_SETTINGS
from blur_es.util.markdown import markdown_table
from blur_es.util.threads import ONE_THREAD


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, those of their subcommands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                if any(isinstance(each, argparse._SubParsersAction) for each in command._actions):
                    yield from parsers(command)
                else:
                    yield command


def _escaped(text: str) -> str:
    """Text of a help message as Markdown: placeholders and options are not markup."""
    return re.sub(r"([<>*_\[\]$])", r"\\\1", text)


def _summary() -> list[str]:
    return markdown_table(
        ["command", "what it does"],
        [[f"`{each.prog}`", _escaped(each.description or "")] for each in parsers(make_parser())],
    )


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = ""
    if action.nargs != 0:
        choices = ",".join(map(str, action.choices or ()))
        value = f" {action.metavar or (f'{{{choices}}}' if choices else action.dest.upper())}"
    return ", ".join(f"`{name}{value}`" for name in action.option_strings)


def _options() -> list[str]:
    lines: list[str] = []
    for parser in parsers(make_parser()):
        formatter = parser._get_formatter()
        lines += [*([""] if lines else []), f"### {parser.prog}", ""]
        lines += [_escaped(parser.description or ""), ""]
        lines += markdown_table(
            ["argument", "meaning"],
            [
                [_name(action), _escaped(formatter._expand_help(action) if action.help else "")]
                for action in parser._actions
                if not isinstance(action, argparse._HelpAction)
            ],
        )
        if parser.epilog:
            lines += ["", _escaped(parser.epilog)]
    return lines


def _exit_codes() -> list[str]:
    meanings = {
        0: "done",
        FAILED: "failed: the message says what happened and what to do",
        WRONG_INPUT: "wrong input: the message says what was found and what was expected",
        INTERRUPTED: "interrupted; the last checkpoint is complete and `--resume` continues",
    }
    return markdown_table(
        ["exit code", "meaning"], [[str(code), meaning] for code, meaning in meanings.items()]
    )


def _fixed_variables() -> list[str]:
    fixed = ONE_THREAD | NEUTRAL_SETTINGS
    return markdown_table(
        ["variable", "value"], [[f"`{name}`", f"`{value}`"] for name, value in fixed.items()]
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "summary": _summary,
    "exit_codes": _exit_codes,
    "fixed_variables": _fixed_variables,
    "options": _options,
}
