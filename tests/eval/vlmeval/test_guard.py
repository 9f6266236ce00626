"""Classes of VLMEvalKit that run what a model says: here nothing starts, nobody is reached, the row is undecided."""

import base64
import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import draw

PICTURE = base64.b64encode(draw(3)).decode()


def opened(worker, folder, name, **cells):
    """Open a set of one row."""
    path = folder / f"{name}.tsv"
    row = {"index": "s0", "question": "?", "image": PICTURE, **cells}
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), delimiter="\t")
        writer.writeheader()
        writer.writerow(row)
    return list(worker.open(name, path, folder / "images", []))


def outcome(worker, name, prediction):
    """What becomes of an answer by rules."""
    return worker.score(name, [{"id": "s0", "prediction": prediction, "given": {}, "compare": "vlmeval"}])[0]


def test_a_set_that_runs_the_models_program(worker, tmp_path):
    """SciDocBench's exec_match starts Python with the answer; VLMEvalKit takes what fails there for a wrong answer."""
    target = tmp_path / "created"
    reference = "import sys; open(sys.argv[2], 'w').write('x')"
    answer = json.dumps({"input_path": "/dev/null", "reference_script": reference})
    opened(worker, tmp_path, "SciDocBench", answer=answer, eval_method="exec_match", category="x")
    found = outcome(worker, "SciDocBench", f"```python\nopen({str(target)!r}, 'w')\n```")
    assert found == {
        "verdict": "undecided",
        "reason": "VLMEvalKit would have started a program (subprocess.Popen)",
        "asked": False,
    }
    assert not target.exists()
    told = worker.evaluate("SciDocBench", {"s0": f"```python\nopen({str(target)!r}, 'w')\n```"}, {})
    assert "would have started a program" in told["failed"] and not target.exists()


@pytest.mark.parametrize("kind", ["compare_expression_function", "judge_24points_function"])
def test_a_set_that_evaluates_an_equation(worker, tmp_path, kind):
    """MME-Reasoning hands the judge's equation to sympy, which evaluates it, or to eval, and swallows all."""
    target = tmp_path / "created"
    attack = f"open({str(target)!r}, 'w')"
    prompt = {"compare_expression_function": "formula_extraction_prompt", "judge_24points_function": "points24_prompt"}
    opened(worker, tmp_path, "MME-Reasoning", answer="['1+1']", question_type="open", function_id=kind,
           prompt_id=prompt[kind], capability="x",
           special_info="{'init_cards': [6, 4]}", reasoning_type="x", difficulty_level="x")  # fmt: skip
    reply = json.dumps({"equation": attack}) if kind.startswith("compare") else f"{attack}=24"
    found = outcome(worker, "MME-Reasoning", attack)
    assert found["verdict"] == "undecided" and "asks a judge" in found["reason"]
    # in its own evaluation of the whole, a judge that hands the attack on
    (need,) = worker.evaluate("MME-Reasoning", {"s0": attack}, {})["needs"]
    told = worker.evaluate("MME-Reasoning", {"s0": attack}, {need["key"]: reply})
    assert "run text as code" in told["failed"], told
    assert not target.exists()


def in_the_worker(code):
    """Run code in VLMEvalKit's interpreter behind the guards, as the worker does; returns what it prints."""
    root = Path(__file__).parents[3]
    before = (
        "import sys, types; p = types.ModuleType('rlfr_eval'); "
        f"p.__path__ = [{str(root / 'eval' / 'rlfr_eval')!r}]; sys.modules['rlfr_eval'] = p; "
        "from rlfr_eval.vlmeval.worker.guard import Refused, clear_blocked_attempt, import_vlmeval, blocked_attempt; "
        f"import_vlmeval({str(root / 'rlfr_vlm' / 'compat' / 'torchvision_hook.py')!r})\n"
    )
    done = subprocess.run(
        [vlmeval_python(), "-I", "-c", before + code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_every_way_out_is_shut_and_noted(tmp_path):
    """Also where VLMEvalKit swallows what is raised, or forks first; nothing is created and no name is looked up."""
    target = tmp_path / "created"
    touch = f"touch {target}"
    (tmp_path / "answer.py").write_text(f"open({str(target)!r}, 'w')")
    attempts = [
        f"os.system({touch!r})",
        f"os.popen({touch!r})",
        f"subprocess.run(['sh', '-c', {touch!r}])",
        f"os.posix_spawn('/bin/sh', ['sh', '-c', {touch!r}], {{}})",
        f"os.spawnvp(os.P_WAIT, 'sh', ['sh', '-c', {touch!r}])",
        f"pty.spawn(['sh', '-c', {touch!r}])",
        "multiprocessing.get_context('spawn').Process(target=print).start()",
        f"eval(\"open({str(target)!r}, 'w')\")",
        f"exec(\"open({str(target)!r}, 'w')\")",
        f"runpy.run_path({str(tmp_path / 'answer.py')!r})",
        "importlib.util.module_from_spec(spec).__spec__.loader.exec_module(importlib.util.module_from_spec(spec))",
        f"compile(\"open({str(target)!r}, 'w')\", '<string>', 'exec')",
        f"sympy.sympify(\"open({str(target)!r}, 'w')\")",
        f"sympy.parse_expr(\"open({str(target)!r}, 'w')\", evaluate=False)",
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "socket.gethostbyname('localhost')",
        "socket.getaddrinfo('localhost', 80)",
        "urllib.request.urlopen('http://127.0.0.1:9')",
    ]
    code = f"""
import importlib.util, multiprocessing, os, pty, runpy, socket, subprocess, sympy, urllib.request
def attempt(source):
    try:
        compiled[source]()
    except Exception:
        pass
spec = importlib.util.spec_from_file_location("answer", {str(tmp_path / "answer.py")!r})
compiled = {{}}
{"".join(f"compiled[{source!r}] = lambda: {source}" + chr(10) for source in attempts)}
for source in compiled:
    clear_blocked_attempt()
    try:
        attempt(source)
    except Refused:
        pass
    print(bool(blocked_attempt()), source)
clear_blocked_attempt()
child = multiprocessing.get_context('fork').Process(target=attempt, args=({attempts[0]!r},))
child.start(); child.join()
print(bool(blocked_attempt()), "forked")
"""
    told = in_the_worker(code)
    assert told == [f"True {source}" for source in [*attempts, "forked"]]
    assert not target.exists()


def test_what_runs_nothing_goes_on_working():
    """Literals, arithmetic and sympy's numbers have their value, prose its error; libraries make code of their own."""
    code = """
import ast, collections, dataclasses, importlib, typing, pandas, sympy
clear_blocked_attempt()
print(eval("[1, 'a']"), eval("1/4 + 2*3"), eval("-0.5"), eval("{'a': None}"))
for text in ("It has seven", "seven", "x**2 + 1", "nobody(3)*2"):
    try:
        eval(text)
    except (SyntaxError, NameError) as error:
        print(type(error).__name__)
from latex2sympy2_extended import latex2sympy
print(latex2sympy(r"\\frac{3}{12}") == sympy.Rational(1, 4), sympy.sympify("2*x + 1"))
Point = collections.namedtuple("Point", "x y")
One = dataclasses.make_dataclass("One", ["a"])
hinted = type("Hinted", (), {"__annotations__": {"a": "int"}})
print(Point(1, 2).y, One(3).a, ast.literal_eval("(1,)"), typing.get_type_hints(hinted))
frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
print(frame.query("a > 1")["b"].iloc[0], frame.groupby("a").sum()["b"].iloc[1])
importlib.import_module("xml.etree.ElementTree")
import turtledemo, wsgiref.simple_server
print(blocked_attempt() == "")
"""
    assert in_the_worker(code) == [
        "[1, 'a'] 6.25 -0.5 {'a': None}",
        "SyntaxError",
        "NameError",
        "NameError",
        "NameError",
        "True 2*x + 1",
        "2 3 (1,) {'a': <class 'int'>}",
        "4 4",
        "True",
    ]


def test_no_option_is_chosen_at_random(worker, tmp_path):
    """VMCBench has its own dice, without a judge."""
    opened(worker, tmp_path, "VMCBench_DEV", answer="B", A="cat", B="dog", C="cow", D="hen", category="MMStar")
    found = outcome(worker, "VMCBench_DEV", "I cannot tell at all.")
    assert found["verdict"] == "undecided" and "at random" in found["reason"]
    assert "at random" not in outcome(worker, "VMCBench_DEV", "It is (B)")["reason"]  # its table wants all categories
