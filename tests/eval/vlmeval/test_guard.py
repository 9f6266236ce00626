"""Behind the guards no program starts, nobody is reached and no text is run, and what runs nothing goes on working.

`test_worker.py` tests the same on sets whose classes run what a model says.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.eval.conftest import ScriptedEndpoint
from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import draw

WAYS_OUT = [
    "os.system('touch created')",
    "os.popen('touch created')",
    "subprocess.run(['sh', '-c', 'touch created'])",
    "os.posix_spawn('/bin/sh', ['sh', '-c', 'touch created'], {})",
    "os.spawnvp(os.P_WAIT, 'sh', ['sh', '-c', 'touch created'])",
    "pty.spawn(['sh', '-c', 'touch created'])",
    "multiprocessing.get_context('spawn').Process(target=print).start()",
    "eval(\"open('created', 'w')\")",
    "exec(\"open('created', 'w')\")",
    "runpy.run_path('answer.py')",
    "importlib.util.module_from_spec(spec).__spec__.loader.exec_module(importlib.util.module_from_spec(spec))",
    "compile(\"open('created', 'w')\", '<string>', 'exec')",
    "sympy.sympify(\"open('created', 'w')\")",
    "sympy.parse_expr(\"open('created', 'w')\", evaluate=False)",
    "socket.create_connection(('127.0.0.1', 9))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "socket.gethostbyname('localhost')",
    "socket.getaddrinfo('localhost', 80)",
    "urllib.request.urlopen('http://127.0.0.1:9')",
]
TRY_WAYS_OUT = f"""
import importlib.util, multiprocessing, os, pty, runpy, socket, subprocess, sympy, urllib.request
def attempt(source):
    try:
        compiled[source]()
    except Exception:
        pass
spec = importlib.util.spec_from_file_location("answer", "answer.py")
compiled = {{}}
{"".join(f"compiled[{source!r}] = lambda: {source}" + chr(10) for source in WAYS_OUT)}
for source in compiled:
    clear_blocked_attempt()
    try:
        attempt(source)
    except Refused:
        pass
    print(bool(blocked_attempt()), source)
clear_blocked_attempt()
child = multiprocessing.get_context('fork').Process(target=attempt, args=({WAYS_OUT[0]!r},))
child.start(); child.join()
print(bool(blocked_attempt()), "forked")
"""
RUN_NOTHING = """
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
KINDS = ("RGB", "RGBA", "L", "P", "JPEG")
ASK_AND_ENCODE = f"""
import base64, ssl, sys, urllib.request
from PIL import Image
from vlmeval.smp.vlm import encode_image_to_base64
assert ssl._create_default_https_context is ssl.create_default_context
try:
    urllib.request.urlopen(sys.argv[1] + "/models", timeout=5)
except Refused:
    print("refused")
for kind in {KINDS!r}:
    image = Image.open(kind)
    for name, one in (("", image), ("-small", image.resize((60, 40)))):
        one.save(kind + name + ".in", format="PNG")
        content = base64.b64decode(encode_image_to_base64(Image.open(kind + name + ".in")))
        open(kind + name + ".out", "wb").write(content)
"""
# Pieces are compiled first, which the guards refuse later, and each runs in a forked process of its own.
RUN_PIECES = """
import os, sys, traceback, types
package = types.ModuleType("rlfr_eval")
package.__path__ = [ROOT + "/eval/rlfr_eval"]
sys.modules["rlfr_eval"] = package
from rlfr_eval.vlmeval.worker import guard
compiled = [(name, compile(piece, name, "exec")) for name, piece in PIECES.items()]
guard.import_vlmeval(ROOT + "/rlfr_vlm/compat/torchvision_hook.py")
for name, code in compiled:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(name + ".told", os.O_WRONLY | os.O_CREAT), 1)
        failed = 0
        try:
            exec(code, {"__name__": "__main__", **vars(guard)})
        except BaseException:
            failed = 1
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(failed)  # the libraries take seconds to clean up
    print(name, os.waitpid(child, 0)[1], flush=True)  # else the next child prints it as well
"""


@dataclass
class Behind:
    """What pieces of code did in VLMEvalKit's interpreter behind the guards.

    Attributes:
        folder: in which they ran.
        errors: all that they wrote to standard error.
        asked: whether anything arrived at the server whose address they were given.
    """

    folder: Path
    errors: str
    asked: bool

    def told(self, name: str) -> list[str]:
        """The lines that a piece printed; the test fails if it raised."""
        assert f"{name} 0\n" in (self.folder / "codes").read_text(), self.errors
        return (self.folder / f"{name}.told").read_text().splitlines()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Behind:
    """The three pieces above, run as the worker runs what is VLMEvalKit's, whose import takes ten seconds."""
    folder = tmp_path_factory.mktemp("behind")
    (folder / "answer.py").write_text("open('created', 'w')")
    for kind in KINDS:
        (folder / kind).write_bytes(draw(5, kind))
    pieces = {"ways_out": TRY_WAYS_OUT, "run_nothing": RUN_NOTHING, "ask_and_encode": ASK_AND_ENCODE}
    before = f"ROOT, PIECES = {str(Path(__file__).parents[3])!r}, {pieces!r}\n"
    with ScriptedEndpoint(lambda body, n: "x") as server:
        done = subprocess.run(
            [vlmeval_python(), "-I", "-c", before + RUN_PIECES, server.url],
            cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    (folder / "codes").write_text(done.stdout)
    return Behind(folder, done.stderr, bool(server.keys))


def test_every_way_out_is_shut_and_noted(behind):
    """Also where VLMEvalKit swallows what is raised, or forks first; nothing is created and no name is looked up."""
    assert behind.told("ways_out") == [f"True {source}" for source in [*WAYS_OUT, "forked"]]
    assert not (behind.folder / "created").exists()


def test_what_runs_nothing_goes_on_working(behind):
    """Literals, arithmetic and sympy's numbers have their value, prose its error; libraries make code of their own."""
    assert behind.told("run_nothing") == [
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


def test_the_process_reaches_no_network_and_its_jpeg_is_ours(behind):
    """Nothing arrives at a server; certificates are checked; `--jpeg` is byte for byte what VLMEvalKit sends."""
    from rlfr_eval.model.request_images import as_jpeg

    assert behind.told("ask_and_encode") == ["refused"] and not behind.asked
    images = list(behind.folder.glob("*.in"))
    assert len(images) == 2 * len(KINDS)
    for path in images:
        assert as_jpeg(path.read_bytes()) == path.with_suffix(".out").read_bytes(), path.name
