"""The command line: instant help, one clear message for every mistake."""

import subprocess
import sys

import pytest

from rlfr_eval.cli import COMMANDS as EVAL_COMMANDS
from rlfr_eval.cli import main as eval_main
from rlfr_vlm.cli import COMMANDS, main
from rlfr_vlm.errors import UserError


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


PROGRAMS = {"rlfr_vlm": COMMANDS, "rlfr_eval": EVAL_COMMANDS}


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        (package, words)
        for package, known in PROGRAMS.items()
        for words in (["--help"], ["--version"], *([name, "--help"] for name in known))
    ],
)
def test_help_is_instant_and_imports_nothing_heavy(package, arguments):
    """Imports take most of the time of `--help`; benchmarks/speed/import_time.py measures the seconds."""
    code = (
        f"import sys; before = set(sys.modules); import {package}.cli; {package}.cli.main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'numpy', 'openai', 'tqdm'} & set(sys.modules); "
        "imported = set(sys.modules) - before; "
        "sys.exit(f'{heavy} {sorted(imported)}' if heavy or len(imported) > 150 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_command_offers_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "Unknown command 'trian'. Did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "program"), [("rlfr", main), ("rlfr-eval", eval_main)])
@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_reads_what_is_installed(name, program, flag, tmp_path, monkeypatch, capsys):
    """The path has torch's metadata only, so the other packages count as not installed."""
    import rlfr_vlm.provenance  # noqa: F401  # before the path is replaced

    (tmp_path / "torch-9.8.7.dist-info").mkdir()
    (tmp_path / "torch-9.8.7.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 9.8.7\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr("platform.python_version", lambda: "3.12.99")
    assert program([flag]) == 0
    lines = [f"{name} 0.1.0", "python 3.12.99", "torch 9.8.7", "transformers not installed", "trl not installed"]
    assert capsys.readouterr().out.splitlines() == lines


def test_an_error_starts_on_a_line_of_its_own_below_an_open_bar(monkeypatch, capsys):
    import rlfr_vlm.commands.train as command

    def fail(arguments):
        from tqdm import tqdm

        bar = tqdm(total=10, desc="rlvr", file=sys.stderr)
        bar.update(3)
        raise UserError("do this")

    monkeypatch.setattr(command, "run", fail)
    assert main(["train"]) == 2
    lines = capsys.readouterr().err.split("\n")
    assert lines[-2:] == ["rlfr: do this", ""] and "3/10" in lines[-3]


def run_raising(monkeypatch, error: BaseException) -> int:
    import rlfr_vlm.commands.train as command

    def fail(arguments):
        raise error

    monkeypatch.setattr(command, "run", fail)
    return main(["train"])


def test_error_from_a_dataloader_worker_is_one_message_too(monkeypatch, capsys):
    text = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"
    assert run_raising(monkeypatch, UserError(text + "rlfr_vlm.errors.UserError: Cannot read a.png.\n")) == 2
    assert capsys.readouterr().err == "rlfr: Cannot read a.png.\n"


def test_exit_codes(monkeypatch, capsys):
    assert run_raising(monkeypatch, UserError("do this")) == 2
    assert capsys.readouterr().err == "rlfr: do this\n"
    assert run_raising(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/7"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598"),
        ValueError("I/O error: No space left on device (os error 28)"),
        OSError(27, "File too large"),
        ValueError("I/O error: File too large (os error 27)"),
    ],
)
def test_full_disk_is_one_message(monkeypatch, capsys, error):
    assert run_raising(monkeypatch, error) == 2
    shown = capsys.readouterr().err
    assert "the disk is full" in shown and "Traceback" not in shown


def test_too_many_open_files_is_one_message(monkeypatch, capsys):
    assert run_raising(monkeypatch, OSError(24, "Too many open files", "a.png")) == 2
    assert capsys.readouterr().err.endswith(
        "Too many open files: this shell's limit is too low. Raise it with `ulimit -n 4096`.\n"
    )


def test_bugs_still_show_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_raising(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstart", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["quickstart", "--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["quickstart", "--out", __file__], "Cannot make the folder"),
        (["quickstart", "--steps", "many"], "invalid int value: 'many'"),
        (["quickstart", "--sed", "1"], "nrecognized arguments: --sed"),
    ],
)
def test_quickstart_mistakes(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
