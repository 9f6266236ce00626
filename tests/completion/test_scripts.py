"""Completion as the shells make it: their own programs run the scripts, and find no other program."""

import argparse
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from rlfr_eval.cli import COMMANDS as EVAL_COMMANDS
from rlfr_eval.commands.completion import known_values as known_to_eval
from rlfr_vlm.cli import COMMANDS, main
from rlfr_vlm.command_line import help_of
from rlfr_vlm.commands.completion import known_values
from rlfr_vlm.completion.command import SCRIPTS
from rlfr_vlm.completion.words import CommandWords, Flag, ProgramWords, Values, words_of
from rlfr_vlm.options import METHODS

BASH = shutil.which("bash")
# As bash calls the function: the words so far, the last of which is being typed.
CALL = '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'


@pytest.fixture(scope="module")
def words():
    """The words of both programs."""
    return {
        "rlfr": words_of("rlfr", COMMANDS, known_values()),
        "rlfr-eval": words_of("rlfr-eval", EVAL_COMMANDS, known_to_eval()),
    }


@pytest.fixture(scope="module")
def complete(words, tmp_path_factory):
    """Runs bash with the script, without any other program; returns what it would offer."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "data rows.jsonl").write_text("")
    (folder / "outputs").mkdir()
    for name, program in words.items():
        (folder / f"{name}.bash").write_text(SCRIPTS["bash"](program))

    def run(*typed):
        call = CALL.format(function=f"_{typed[0].replace('-', '_')}")
        done = subprocess.run(
            [BASH, "--norc", "-c", call, str(folder / f"{typed[0]}.bash"), *typed],
            capture_output=True, text=True, check=True, cwd=folder, env={"PATH": "/nonexistent"},
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []

    return run


def test_commands(complete):
    assert complete("rlfr", "tr") == ["train"]
    assert complete("rlfr", "check") == ["check-data", "check-overlap"]
    assert complete("rlfr", "") == [*COMMANDS, "--help", "--version"]
    assert complete("rlfr-eval", "re") == ["regrade", "report"]


def test_flags(complete):
    found = complete("rlfr", "train", "--me")
    assert "--method" in found and all(flag.startswith("--me") for flag in found)
    assert complete("rlfr", "train", "--flow_coe") == ["--flow_coef"]
    assert complete("rlfr", "plan", "--method", "rlvr", "--shard") == ["--sharding"]  # beside those of train
    assert complete("rlfr", "train", "--eval-o") == ["--eval-only"] and complete("rlfr", "train", "--resu") != []
    assert complete("rlfr", "train", "--nothing") == [] and complete("rlfr", "nothing", "--me") == []


def test_values(complete):
    assert complete("rlfr", "train", "--method", "rlfr") == ["rlfr", "rlfr+rlpr", "rlfr+visual"]
    assert complete("rlfr", "train", "--method", "") == list(METHODS)
    assert complete("rlfr", "train", "--config", "c.yaml", "--group_filter", "m") == ["mixed"]
    assert complete("rlfr", "train", "--group-filter", "m") == ["mixed"]  # the parser takes both spellings
    assert complete("rlfr", "train", "--lr_scheduler_type", "cosine_with") == [
        "cosine_with_restarts",
        "cosine_with_min_lr",
    ]
    assert complete("rlfr", "train", "--share_prefix", "") == ["auto", "true", "false"]
    assert complete("rlfr", "train", "--use_peft", "") == ["true", "false"]
    assert complete("rlfr", "fit-flow", "--flow_accept", "") == ["all", "right", "wrong"]
    assert complete("rlfr", "train", "--flow_accept", "") == ["correct", "entropy"]
    assert complete("rlfr", "train", "--learning_rate", "") == []
    found = complete("rlfr-eval", "judge", "")  # an action, then a folder
    assert found[:2] == ["check", "agreement"] and {"data rows.jsonl", "outputs"} <= set(found[2:])
    assert complete("rlfr-eval", "table", "--format", "l") == ["latex"]


def test_values_behind_an_equals_sign(complete):
    """bash makes three words of it, and one where `=` is not in COMP_WORDBREAKS, as in zsh."""
    assert complete("rlfr", "train", "--method", "=", "ent") == ["entropy"]
    assert complete("rlfr", "train", "--method", "=") == list(METHODS)
    assert complete("rlfr", "train", "--method=ent") == ["--method=entropy"]


def test_flags_with_several_values(complete):
    assert complete("rlfr", "train", "--rewards", "accuracy", "len") == ["length"]
    assert complete("rlfr-eval", "lm", "--suite", "math", "aime2") == ["aime24", "aime25"]
    # behind the one value of a flag stands another flag
    assert "--dataset_name" in complete("rlfr", "train", "--method", "rlvr", "")


def test_files(complete):
    assert complete("rlfr", "train", "--config", "da") == ["data rows.jsonl"]
    assert complete("rlfr", "train", "--output_dir", "out") == ["outputs"]
    assert complete("rlfr", "report", "out") == ["outputs"]
    assert complete("rlfr", "check-data", "--dataset_name", "d") == ["digits", "digits_video", "data rows.jsonl"]


def test_bash_calls_the_function_for_the_program(words, tmp_path):
    (tmp_path / "s.bash").write_text(SCRIPTS["bash"](words["rlfr-eval"]))
    done = subprocess.run(
        [BASH, "-c", '. "$0"; complete -p rlfr-eval', tmp_path / "s.bash"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "complete -F _rlfr_eval rlfr-eval\n"


@pytest.mark.parametrize("shell", [name for name in SCRIPTS if name != "bash"])
@pytest.mark.parametrize("program", ["rlfr", "rlfr-eval"])
def test_the_other_shells_can_read_theirs(shell, program, words, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is no shell of this machine, so only the text of its script is tested")
    (tmp_path / "script").write_text(SCRIPTS[shell](words[program]))
    flags = ["--no-execute"] if shell == "fish" else ["-n"]
    done = subprocess.run([shell, *flags, tmp_path / "script"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is no shell of this machine")
def test_fish_completes(words, tmp_path):
    (tmp_path / "s.fish").write_text(SCRIPTS["fish"](words["rlfr"]))
    for typed, offered in (("tr", ["train"]), ("train --method ent", ["entropy"]), ("report s.f", ["s.fish"])):
        call = f"source s.fish; complete -C 'rlfr {typed}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", call], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == offered


def test_fish_by_hand():
    """One line for the command, and one for each flag and what follows it."""
    flags = (
        Flag(("--help", "-h"), "show this", Values()),
        Flag(("--method",), "the user's choice", Values(1, ("rlvr", "rlfr"))),
        Flag(("--to",), "", Values(1, (), True)),
    )
    command = CommandWords("train", "train a policy", flags, Values(1, (), True))
    lines = SCRIPTS["fish"](ProgramWords("rlfr", (command,))).splitlines()
    seen = "complete -c rlfr -n '__fish_seen_subcommand_from train'"
    assert lines[-5:] == [
        "complete -c rlfr -n __fish_use_subcommand -a train -d 'train a policy'",
        f"{seen} -F",
        f"{seen} -l help -s h -d 'show this'",
        f"{seen} -l method -x -a 'rlvr rlfr' -d 'the user\\'s choice'",
        f"{seen} -l to -r -F",
    ]


def test_words_of_a_parser(monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path, nargs="+")
    parser.add_argument("--level", choices=["a", "$(b)", "c;d"], help="of\n  detail (default: %(default)s)")
    parser.add_argument("--pair", nargs=2, type=int)
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    module = types.SimpleNamespace(SUMMARY="s", parser=lambda: parser)
    monkeypatch.setitem(sys.modules, "made_up", module)
    [command] = words_of("p", {"c": "made_up"}, {"pair": ("1", "2"), "c:pair": ("3",)}).commands
    assert command.positional == Values(999, (), True)
    assert command.flags[1:] == (
        Flag(("--level",), "of detail", Values(1, ("a",))),  # a shell would read the other two as something else
        Flag(("--pair",), "", Values(2, ("3",))),
    )


@pytest.mark.parametrize("program", ["rlfr", "rlfr-eval"])
def test_every_flag_in_a_help_text_is_completed(program, words):
    import importlib

    for command in words[program].commands:
        module = {**COMMANDS, **EVAL_COMMANDS}[command.name] if program == "rlfr-eval" else COMMANDS[command.name]
        shown = set(re.findall(r"^ +(--[a-z][\w-]*)", help_of(importlib.import_module(module)), re.M))
        names = {name for flag in command.flags for name in flag.names}
        assert shown <= names, command.name


def test_known_values_are_of_settings_that_there_are(words):
    """Else a table would keep values of settings that were renamed."""
    for program, known in (("rlfr", known_values()), ("rlfr-eval", known_to_eval())):
        commands = {command.name: command for command in words[program].commands}
        for name, values in known.items():
            command, _, dest = name.rpartition(":")
            found = [commands[command]] if command else commands.values()
            flags = [
                flag for one in found for flag in one.flags if flag.names[0].lstrip("-").replace("-", "_") == dest
            ]
            held = [*(flag.values.words for flag in flags), *(one.positional.words for one in found)]
            assert any(set(map(str, values)) <= set(words) for words in held), name


def test_the_command_prints_a_script(capsys):
    assert main(["completion", "fish"]) == 0
    assert capsys.readouterr().out.startswith("# fish completion of rlfr 0.1.0, written by `rlfr completion fish`\n")
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
