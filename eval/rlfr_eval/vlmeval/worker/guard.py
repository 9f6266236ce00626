"""What VLMEvalKit must not do here, whatever its class does: start a program, reach a network, run a model's text.

Read in ms-vlmeval 0.0.20, which on import switches off the check of certificates and applies the `.env` beside its
package over the environment, and whose scoring evaluates cells and model answers: by itself, through sympy, and in
programs that it starts. It also catches what is raised; so an attempt is noted, and leaves its answer undecided.
What a library written in C does by itself, past Python, is not seen.
"""

import _posixsubprocess
import ast
import builtins
import importlib.util
import mmap
import os
import ssl
import sys
from types import FrameType
from typing import Any, NoReturn

NETWORK = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "urllib.Request",
           "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo", "http.client.connect")  # fmt: skip
PROGRAM = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.forkpty", "pty.spawn",
           "os.startfile", "webbrowser.open")  # fmt: skip
FORBIDDEN = {
    **dict.fromkeys(NETWORK, "used the network"),
    **dict.fromkeys(PROGRAM, "started a program"),
    "compile": "run text as code",  # which eval and exec do first
}
# modules that make code of text of their own (named tuples, data classes); `ast` only parses
OF_THEIR_OWN = ("ast", "attr._make", "collections", "dataclasses", "typing")
IMPORTING = "<frozen importlib._bootstrap>"
ARITHMETIC = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop,
              ast.cmpop, ast.Constant, ast.Name, ast.Load, ast.Call)  # fmt: skip
SLOW = (ast.Pow, ast.LShift)  # towers of powers take for ever
SYMPY = ("Integer", "Float", "Rational", "Symbol")  # as which sympy reads the numbers and letters of a text
BEFORE_SYMPY = b"from sympy import *"  # what it runs before it reads one
NOTE_BYTES = 256

_note = mmap.mmap(-1, NOTE_BYTES)  # shared with forked processes, whose attempts count, too
_installed: tuple[str, ...] = ()  # folders from which modules may be imported, but not those that an answer was put in
_serving = False  # while VLMEvalKit's libraries are imported, no answer is there, and they start `ldconfig`, say


class Refused(BaseException):
    """VLMEvalKit tried what it must not. No Exception: VLMEvalKit catches those."""


def import_vlmeval(torchvision_hook: str) -> None:
    """Import VLMEvalKit behind the guards.

    Args:
        torchvision_hook: file of the hook that lets a torchvision for CUDA import beside a torch without; "" for none.
    """
    global _serving, _installed
    environment, context = dict(os.environ), ssl._create_default_https_context
    sys.addaudithook(_audit)
    if torchvision_hook:
        spec = importlib.util.spec_from_file_location("torchvision_hook", torchvision_hook)
        assert spec is not None and spec.loader is not None
        hook = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(hook)
        hook.install()
    import vlmeval  # noqa: F401

    ssl._create_default_https_context = context
    os.environ.clear()
    os.environ.update(environment)
    builtins.eval = _reading(builtins.eval)
    # multiprocessing starts interpreters with it, past every audit event
    _posixsubprocess.fork_exec = lambda *arguments: _refuse("started a program", "fork_exec")
    _installed = tuple(os.path.realpath(place) + os.sep for place in sys.path if place)
    _serving = True


def forget() -> None:
    """From here on nothing has been tried."""
    _note[:] = bytes(NOTE_BYTES)


def tried() -> str:
    """What was tried since `forget`, here or in a forked process, as a reason; "" for nothing."""
    return _note[:].rstrip(b"\0").decode(errors="ignore")


def _refuse(what: str, how: str) -> NoReturn:
    reason = f"VLMEvalKit would have {what} ({how})"
    _note[:] = reason.encode()[:NOTE_BYTES].ljust(NOTE_BYTES, b"\0")
    raise Refused(reason)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in FORBIDDEN or (not _serving and event not in NETWORK):
        return
    if event == "compile":
        source, filename = arguments
        if source == BEFORE_SYMPY or _may_make_code(sys._getframe(1), os.fsdecode(filename or "<string>")):
            return
    _refuse(FORBIDDEN[event], event)


def _may_make_code(caller: FrameType | None, filename: str = "<string>") -> bool:
    """Whether it is the guarded `eval` below, a module with text of its own, or the import of a module."""
    assert caller is not None
    if caller.f_code is _value.__code__:
        return True
    if caller.f_globals is globals() and caller.f_back is not None:  # `reading`, on behalf of another
        caller = caller.f_back
    if caller.f_globals.get("__name__") in OF_THEIR_OWN:
        return True
    while caller is not None and caller.f_code.co_filename != IMPORTING:
        caller = caller.f_back
    return caller is not None and (filename[0] == "<" or os.path.realpath(filename).startswith(_installed))


def _reading(real: Any) -> Any:
    """`eval` that runs no text: literals and arithmetic are read, what would be no more than an error is raised."""

    def reading(source: Any, *scopes: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        given = [frame.f_globals if one is None else one for one in (*scopes, *named.values())]
        scopes = tuple(given) or (frame.f_globals, frame.f_locals)
        if not isinstance(source, str) or _may_make_code(frame):
            return real(source, *scopes)
        return _value(real, source, scopes)

    return reading


def _value(real: Any, source: str, scopes: tuple[Any, ...]) -> Any:
    """Value of text that runs nothing: a literal, or arithmetic.

    Raises:
        SyntaxError, NameError: as `eval` raises it, of prose and of unknown words.
        Refused: it would run something.
    """
    tree = ast.parse(source.lstrip(" \t"), mode="eval")
    nodes = list(ast.walk(tree))
    known = {name: value for scope in (vars(builtins), *scopes) for name, value in scope.items()}
    plain = all(isinstance(node, ARITHMETIC) for node in nodes)
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    harmless = all(isinstance(one, ast.Name) and _of_sympy(one.id, known.get(one.id)) for one in called)
    if plain and harmless and not any(isinstance(node, SLOW) for node in nodes):
        return real(compile(tree, "<arithmetic>", "eval"), *scopes)
    unknown = [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in known]
    if plain and unknown:
        raise NameError(f"name {unknown[0]!r} is not defined")
    try:
        return ast.literal_eval(tree)
    except ValueError:
        _refuse("run text as code", f"eval of {source[:60]!r}")


def _of_sympy(name: str, value: Any) -> bool:
    return name in SYMPY and str(getattr(value, "__module__", "")).startswith("sympy.")
