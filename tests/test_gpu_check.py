"""The check of a GPU: division of the time, parts that fail or take too long, resuming, page, wheels, script."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from benchmarks.gpu import budget, check, install, parts, process, record
from benchmarks.gpu.page import page_of
from benchmarks.gpu.tables import table_of

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"card": "Card 1", "driver": "1.2", "versions": {"torch": "9"}, "commit": "abc", "torch": "9"}
GOOD = "import json, sys; json.dump({'numbers': {'x': 1}}, open(sys.argv[1], 'w'))"
BAD = "print('first'); sys.exit('the last words')"
HANGS = "import time; print('began', flush=True); time.sleep(60)"
PARTLY = f"{GOOD}; {HANGS}"


def part(name, program, minutes=1.0, **more):
    """A part that runs a short program, which gets the path of its JSON file."""
    return parts.Part(name, f"what {name} does", minutes, ("numbers",),
                      lambda setting: ["-c", f"import sys; {program}", str(setting.results)], **more)  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a check of these parts on a machine with a card; returns the exit code and the results file's content."""

    def start(*chosen, options=(), machine=MACHINE, limit=20.0):
        monkeypatch.setattr(check, "PARTS", chosen)
        monkeypatch.setattr(check, "NAMES", tuple(one.name for one in chosen))
        monkeypatch.setattr(check, "machine_of", lambda environment: machine)
        monkeypatch.setattr(process, "POLL", 0.05)
        monkeypatch.setattr(check.Budget, "limit", lambda *_: limit)
        names = ",".join(one.name for one in chosen)
        code = check.main(["--out", str(tmp_path / "out"), "--parts", names, *options])
        path = tmp_path / "out" / "results.json"
        return code, json.loads(path.read_text()) if path.is_file() else None

    return start


def test_shares_of_the_time_by_hand():
    """2 of 10 estimated minutes of 600 s are 120 s, and half as much again 180 s."""
    assert budget.limit_of(600, 2, [3, 5]) == 180
    assert budget.limit_of(600, 8, [2]) == 600  # 720 s are not left
    assert budget.limit_of(600, 2, []) == 600  # nothing waits
    assert budget.limit_of(100, 0.5, [9.5]) == 30  # no part gets less than it needs to begin
    assert budget.limit_of(29.9, 1, []) is None


def test_the_set_up_counts_and_time_that_is_not_used_goes_to_later_parts(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    time_left = budget.Budget(10, started=940)  # the script has taken a minute
    assert time_left.left == 535  # 600 - 60 - 5 for the last write
    assert time_left.limit(1, [3]) == pytest.approx(535 / 4 * 1.5)
    clock[0] += 35
    assert time_left.limit(1, [1]) == 375  # half of 500, and half as much again
    clock[0] += 600
    assert time_left.left == 0 and time_left.limit(1, []) is None


def test_a_process_that_takes_too_long_ends_with_all_that_it_has_started(tmp_path):
    """Its child has a session of its own, as runs of a sweep do."""
    sleeps = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    program = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    program += f"child = subprocess.Popen({sleeps}, start_new_session=True); print(child.pid, flush=True); "
    program += "time.sleep(60)"
    log, polls = tmp_path / "log", []
    ended = process.run([sys.executable, "-c", program], 3.0, log, os.environ, tmp_path, lambda: polls.append(1), 0.5)
    assert ended.timed_out and ended.code == -9 and 3 <= ended.seconds < 10 and len(polls) > 3
    pid = int(log.read_text())
    status = Path(f"/proc/{pid}/stat")
    for _ in range(50):  # a killed orphan waits for its new parent
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} still runs")


def test_a_part_that_fails_is_recorded_and_the_next_one_runs(run, tmp_path, capsys):
    code, content = run(part("a", BAD), part("b", GOOD))
    assert code == 1
    a, b = content["parts"].values()
    assert (a["state"], a["last_lines"]) == ("failed", ["first", "the last words", "(exit code 1)"])
    assert (b["state"], b["result"], b["limit"], b["commit"]) == ("done", {"x": 1}, 20, "abc")
    assert content["machine"] == MACHINE and content["cpu"] is False
    assert "a: failed after" in capsys.readouterr().out
    page = (tmp_path / "out/index.html").read_text()
    assert "the last words" in page and "Card 1" in page
    log = (tmp_path / "out/log.txt").read_text()
    assert "== a\nfirst\nthe last words" in log and log.index("== a") < log.index("== b")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "log.txt", "results.json"]


def test_a_part_that_takes_too_long_keeps_what_it_has_written(run):
    code, content = run(part("a", PARTLY), limit=2.0)
    assert code == 1
    found = content["parts"]["a"]
    assert (found["state"], found["result"]) == ("timed out", {"x": 1})
    assert found["last_lines"][0] == "began" and 1 < found["seconds"] < 9


def test_results_are_there_while_a_part_runs(run, tmp_path):
    """The last part looks at the files itself, as a reader does after a cut."""
    out = tmp_path / "out"
    look = f"import pathlib, shutil; shutil.copytree({str(out)!r}, {str(tmp_path / 'seen')!r}); {GOOD}"
    assert run(part("a", GOOD), part("b", look))[0] == 0
    seen = json.loads((tmp_path / "seen/results.json").read_text())["parts"]
    assert (seen["a"]["state"], seen["a"]["result"], seen["b"]["state"]) == ("done", {"x": 1}, "running")
    assert "running, or cut off" in (tmp_path / "seen/index.html").read_text()


def test_a_second_run_takes_up_what_is_not_done(run, tmp_path, capsys):
    code, before = run(part("a", GOOD), part("b", BAD))
    again = GOOD.replace("'x': 1", "'x': 2")
    code, content = run(part("a", again), part("b", again))
    assert code == 0 and "a: done before; --again runs it again" in capsys.readouterr().out
    assert content["parts"]["a"] == before["parts"]["a"]
    assert content["parts"]["b"]["result"] == {"x": 2} and "last_lines" not in content["parts"]["b"]
    code, content = run(part("a", again), options=["--again"])
    assert content["parts"]["a"]["result"] == {"x": 2} and "b" in content["parts"]


def test_a_part_without_its_policy_or_time_says_why(run, tmp_path):
    code, content = run(part("a", GOOD), part("rl_smollm2", GOOD, policy="--smollm2"))
    assert code == 0
    assert content["parts"]["rl_smollm2"]["reason"] == "--smollm2 names no policy"
    code, content = run(part("c", GOOD), limit=None)
    assert content["parts"]["c"]["state"] == "not run" and "too few to start it" in content["parts"]["c"]["reason"]
    assert "not run: --smollm2 names no policy" in (tmp_path / "out/index.html").read_text()


def test_results_of_another_card_are_not_mixed(run, capsys):
    run(part("a", GOOD))
    assert run(part("a", GOOD), machine=MACHINE | {"card": "Card 2"})[0] == 2
    assert "has results of Card 1, and this is Card 2. Name another --out." in capsys.readouterr().err
    assert run(part("a", GOOD), options=["--cpu"])[0] == 2
    assert "and this is a dry run on a CPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "test"], "--parts has 'test'. Did you mean 'tests'? Choose from: tests, step_3b,"),
        (["--minutes", "0"], "--minutes is 0; it must be more than 0."),
        (["--smollm2", "nowhere"], "--smollm2 is nowhere, where there is no config.json."),
        ([], "torch finds no CUDA device here."),
    ],
)
def test_mistakes_are_one_message(options, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(check, "machine_of", lambda environment: MACHINE | {"card": None})
    assert check.main(["--out", str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"gpu_check: {message}")
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_taken_for_results(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text('{"runs": []}')
    assert run(part("a", GOOD))[0] == 2
    assert "is not a results file of a check" in capsys.readouterr().err


def test_the_page_escapes_all_text():
    bad = "<script>alert(1)</script>&"
    tests = {"planned": 2, "tests": {bad: {"outcome": bad, "seconds": 1, "message": bad, "numbers": {bad: 1.0}}}}
    one = {"what": bad, "state": "failed", "result": tests, "last_lines": [bad], "command": [bad], "commit": bad}
    other = {"what": bad, "state": "not run", "reason": bad}
    content = {"machine": MACHINE | {"card": bad, "versions": {bad: bad}}, "cpu": False, "notes": [bad],
               "parts": {"tests": one, "prefix": other}}  # fmt: skip
    page = page_of(content)
    assert "<script" not in page.replace('<script type="text/plain" id="data">', "")
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") > 12
    assert "1 more did not run" in page


def test_tables_by_hand():
    step = {"seconds_per_update": {"trl": [4.0, 2.0, 3.0], "rlfr": [2.0, 2.0, 2.0]},
            "over_trl": {"trl": 1, "rlfr": 0.67}, "parts": {}, "peak_bytes": {"rlfr": 5e9},
            "layers": 21, "layers_of_model": 28}  # fmt: skip
    table = table_of("step_7b", step)
    assert table.rows[1] == ("rlfr", "3", "2.000", "2.000", "2.000", "0.670", "5.0")
    assert table.rows[0] == ("trl", "3", "2.000", "3.000", "4.000", "1.000", "unknown")
    assert table.notes == ["21 of 28 decoder blocks: the memory does not hold more decoder blocks."]
    field = {"width": 8, "depth": 1, "dtype": "bfloat16", "seconds": {"median": 0.5}, "tokens_per_second": 9.0,
             "matmul_peak_flops": 5e14, "share_of_matmul_peak": 0.5, "share_of_card_peak": None}  # fmt: skip
    assert table_of("flow_fit", {"fields": [field]}).rows[0][-3:] == ("500.00", "50.0%", "unknown card")
    assert table_of("flow_fit", {"fields": [field | {"share_of_card_peak": 0.25}]}).rows[0][-1] == "25.0%"
    assert table_of("prefix", {"1/2": {"update": {}}}).notes[0].startswith("The result cannot be shown (KeyError:")


def test_every_part_has_a_table_and_a_command_of_files_that_exist(tmp_path):
    from benchmarks.gpu.tables import TABLES

    assert tuple(TABLES) == parts.NAMES
    policies = dict.fromkeys(parts.NAMES, tmp_path)
    for one in parts.PARTS:
        for cpu in (False, True):
            command = one.command(parts.Setting(tmp_path / "a.json", tmp_path, 100, cpu, policies))
            if command[0] == "-m":
                assert importlib.util.find_spec(command[1]) is not None
            else:
                assert (ROOT / command[0]).is_file()
            assert str(tmp_path / "a.json") in command
            assert "--seconds" not in command or command[command.index("--seconds") + 1] == "75"


def test_tests_are_recorded_as_they_end(tmp_path):
    """In a process of its own, as the part runs them."""
    (tmp_path / "test_x.py").write_text(
        "import pytest\ndef test_a(record_property): record_property('n', 2.5)\n"
        "def test_b(): assert 1 == 2\ndef test_c(): pytest.skip('no CUDA device')\n"
        "@pytest.fixture\ndef broken(): raise OSError('gone')\ndef test_d(broken): pass\n"
    )
    out = tmp_path / "tests.json"
    options = ["-p", "benchmarks.gpu.record_tests", "--record-json", str(out), "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-c", os.devnull, *options]
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    content = json.loads(out.read_text())["tests"]
    found = {name[-6:]: (test["outcome"], test.get("message", "")) for name, test in content["tests"].items()}
    assert content["planned"] == 4 and found["test_a"] == ("passed", "")
    assert found["test_b"][0] == "failed" and "assert 1 == 2" in found["test_b"][1]
    assert found["test_c"] == ("skipped", "no CUDA device")
    assert found["test_d"][0] == "failed" and "gone" in found["test_d"][1]
    assert next(iter(content["tests"].values()))["numbers"] == {"n": 2.5}


@pytest.mark.parametrize(
    ("installed", "names"),
    [
        ({}, ["nvidia_cublas", "torch", "trl", "xxhash"]),
        # torch fits, so its libraries stay; trl is too old; xxhash, which the project does not name, is later
        ({"torch": "2.11.0+cu130", "trl": "1.15.0", "xxhash": "3.9"}, ["trl"]),
        ({"torch": "2.9.0", "trl": "1.16.0", "xxhash": "3.4"}, ["nvidia_cublas", "torch", "xxhash"]),
    ],
)
def test_what_is_there_in_a_fitting_version_stays(installed, names):
    files = ("nvidia_cublas-13.1-py3-none-any", "rlfr_vlm-0.1.0-py3-none-any", "torch-2.13.0-cp311-cp311-linux_x86_64",
             "trl-1.16.0-py3-none-any", "xxhash-3.8.0-cp311-cp311-linux_x86_64")  # fmt: skip
    ranges = {"torch": SpecifierSet(">=2.11,<2.14"), "trl": SpecifierSet(">=1.16,<1.17")}
    chosen = install.needed([Path(f"{name}.whl") for name in files], installed, ranges)
    assert [path.name.split("-")[0] for path in chosen] == names


def test_what_the_project_lacks_is_named():
    project = {"dependencies": ["torch>=2.11,<2.14", "trl>=1.16", "pillow>=11"], "optional-dependencies": {}}
    found = install.unmet({"torch": "2.10", "pillow": "12"}, project)
    assert found == ["torch<2.14,>=2.11 (there is 2.10)", "trl>=1.16 (missing)"]


def script(*options, **changes):
    """Run the script with this interpreter."""
    environment = {**os.environ, "PYTHON": sys.executable, **changes}
    command = ["bash", str(ROOT / "scripts/gpu_check.sh"), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_script_lists_the_parts_with_their_minutes():
    done = script("--list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(parts.NAMES)
    assert all(line.split()[2] == "min" and float(line.split()[1]) > 0 for line in lines[:-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nope"], "unknown option --nope; see the head of scripts/gpu_check.sh"),
        (["--out"], "--out has no value; see the head of scripts/gpu_check.sh"),
        (["--minutes", "--cpu"], "--minutes has no value; see the head of scripts/gpu_check.sh"),
    ],
)
def test_mistakes_of_the_script_are_one_message(options, message):
    done = script(*options)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"gpu_check: {message}\n")


def test_the_script_installs_the_wheels_that_are_missing(tmp_path):
    """A toy wheel beside one of what is there already."""
    from tests.toy_backend import write_wheel

    (tmp_path / "wheels/1").mkdir(parents=True)
    write_wheel(tmp_path / "wheels/1", "small-thing", "1.2", (), {"small_thing.py": "version = '1.2'"})
    write_wheel(tmp_path / "wheels", "torch", "2.13.0", (), {"torch.py": "raise OSError"})
    done = script("--wheels", tmp_path / "wheels", "--out", tmp_path / "out", "--list")
    assert done.returncode == 0, done.stderr
    assert "gpu_check: 1 of 2 wheels are used; the others are there already" in done.stdout
    site = tmp_path / "out.work/site"
    assert (site / "small_thing.py").is_file() and not (site / "torch.py").exists()
    done = script("--wheels", tmp_path / "nothing", "--out", tmp_path / "out", "--list")
    assert done.returncode == 2 and "no wheels in" in done.stderr


@pytest.mark.slow
def test_a_dry_run_of_the_quick_parts(tmp_path):
    done = script("--cpu", "--parts", "flow_fit,prefix,rl_smollm2", "--out", tmp_path / "out", "--minutes", "9")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert {name: one["state"] for name, one in content["parts"].items()} == {
        "flow_fit": "done", "prefix": "done", "rl_smollm2": "not run",
    }  # fmt: skip
    for name in ("flow_fit", "prefix"):
        table = table_of(name, content["parts"][name]["result"])
        assert table.rows and len(table.rows[0]) == len(table.head)
    assert record.device_of(content) == "a dry run on a CPU"
    assert content["machine"]["versions"]["torch"] == content["machine"]["torch"]
