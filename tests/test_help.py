"""Help, completion and the version: what the command line shows of itself."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import nearkin
from nearkin.app import arguments
from nearkin.app.main import COMMANDS, main
from nearkin.app.parse import flags, rules
from nearkin.names import resolve
from nearkin.registry import LOSSES
from nearkin.runs.recipe import DEFAULTS


def printed(capsys, *words: str) -> str:
    """What a command prints that leaves with code 0."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert not left.value.code
    return capsys.readouterr().out


def test_the_version_is_printed(capsys):
    assert printed(capsys, "--version") == f"nearkin {nearkin.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_flag_that_is_read_and_no_other(name, capsys):
    """tyro reads the words; its own help is the second opinion of what there is."""
    command = resolve(COMMANDS[name])
    text = printed(capsys, name, "--help")
    shown = set(re.findall(r"^  (?:-\w[^-]*)?(--[\w-]+)", text, re.M)) - {"--recipe"}
    shown |= {"--help"}
    with rules(), pytest.raises(SystemExit):
        tyro.cli(command, args=["--help"], prog=name)
    lines = re.findall(r"^\W* (-.*)", capsys.readouterr().out, re.M)
    read = {flag for line in lines for flag in re.findall(r"--\w[\w-]*", re.split("  ", line)[0])}
    negated = {f"--no-{flag[2:]}" for flag, kind in flags(command).items() if kind is bool}
    known = {*flags(command), "--help"}
    assert read - negated - {"--help-verbose"} == known
    assert shown == known


def test_help_of_train_begins_with_what_people_change_first(capsys):
    text = printed(capsys, "train", "-h")
    titles = re.findall(r"^(\w[\w ]*):$", text, re.M)
    assert titles[1:] == [*arguments.GROUPS, arguments.RARELY]
    assert titles[0] == "examples"
    first, last = text.partition("\nwhere:")[0], text.partition(f"\n{arguments.RARELY}:")[2]
    assert "--loss NAME" in first
    assert "--head-shrinkage" in last
    assert "--recipe" in text


def test_a_group_names_flags_that_some_command_has():
    there = {
        flag.name for entry in COMMANDS.values() for flag in arguments.flags_of(resolve(entry))
    }
    for names in (*arguments.GROUPS.values(), arguments.PATHS):
        assert set(names) <= there | {"recipe"}
    assert {name.rpartition(".")[2] for name in arguments.NAMED} <= there


def test_help_says_what_each_flag_is_and_its_default(capsys):
    text = " ".join(printed(capsys, "train", "--help").split())
    assert "passes over the training images (default: 4)" in text
    assert "a tenth at 40 % and again at 80 % of the run" in text
    for flag in arguments.flags_of(resolve(COMMANDS["train"])):
        assert flag.text, flag.name
        assert " ".join(flag.text.split()).partition("|")[0][:40] in text.replace("- ", "-"), flag
    recipe = {f.name: f.default for f in arguments.flags_of(resolve(COMMANDS["train"]))}
    assert {name: recipe[name] for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_explained(name):
    for flag in arguments.flags_of(resolve(COMMANDS[name])):
        assert flag.text, flag.name


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"""
        source {script}
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=()
        _shtab_nearkin nearkin '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_commands_flags_and_names(tmp_path, capsys):
    main(["completion", "bash"])
    script = tmp_path / "nearkin.bash"
    script.write_text(capsys.readouterr().out)
    assert completed(script, "nearkin", "tra") == ["train"]
    assert "--loss-options" in completed(script, "nearkin", "train", "--los")
    ratio = [name for name in LOSSES if name.startswith("ratio")]
    assert completed(script, "nearkin", "train", "--loss", "ratio") == ratio


@pytest.mark.parametrize(
    ("shell", "mark"), [("zsh", "#compdef nearkin"), ("fish", "complete -c nearkin")]
)
def test_other_shells_get_a_script_of_their_own(shell, mark, capsys):
    main(["completion", shell])
    script = capsys.readouterr().out
    assert mark in script
    assert all(name in script for name in COMMANDS)


def test_completion_imports_nothing_heavy():
    code = "import sys; from nearkin.__main__ import main; main()"
    code += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert not {"torch", "numpy", "rich"} & set(done.stderr.split())
    assert io.StringIO(done.stdout).readline()
