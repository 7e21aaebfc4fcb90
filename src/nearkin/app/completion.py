"""`nearkin completion`: the words of the command line, completed by a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Literal

from tyro.conf import Positional


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> None:
    """Print a script by which a shell completes commands, flags and the names that they take.

    Example: nearkin completion bash > ~/.local/share/bash-completion/completions/nearkin

    Example: nearkin completion zsh > ~/.zfunc/_nearkin

    Example: nearkin completion fish > ~/.config/fish/completions/nearkin.fish

    Args:
        shell: bash, zsh or fish.
    """
    import shtab

    from nearkin.app.arguments import whole
    from nearkin.app.main import COMMANDS

    parser = whole(COMMANDS)
    for action in actions(parser):
        if getattr(action, "takes_path", False):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))


def actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions(inner)
