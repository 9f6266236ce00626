"""Block what VLMEvalKit must not do: start programs, use the network, run a model's text as code.

On import, ms-vlmeval 0.0.20 disables certificate checks and lets the `.env` beside its package override the
environment. Its scoring evaluates cells and model answers with `eval`, with sympy, and in programs that it starts.
It also catches exceptions; a blocked attempt is therefore recorded, and the answer becomes undecided. Audit events
come from Python only: actions of a C library are not blocked.
"""

import _posixsubprocess
import ast
import builtins
import importlib.util
import mmap
import os
import ssl
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

NETWORK = (
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "urllib.Request",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "http.client.connect",
)
PROGRAM = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.forkpty",
    "pty.spawn",
    "os.startfile",
    "webbrowser.open",
)
FORBIDDEN = {  # audit event -> what it means
    **dict.fromkeys(NETWORK, "used the network"),
    **dict.fromkeys(PROGRAM, "started a program"),
    "compile": "run text as code",  # raised by eval and exec
}
# Modules that compile text they generate (named tuples, data classes); `ast` only parses.
CODE_GENERATORS = ("ast", "attr._make", "collections", "dataclasses", "typing")
IMPORTING = "<frozen importlib._bootstrap>"
ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.Call,
)
SLOW = (ast.Pow, ast.LShift)  # nested powers may not terminate in reasonable time
SYMPY = ("Integer", "Float", "Rational", "Symbol")  # calls into which sympy turns numbers and letters of a text
BEFORE_SYMPY = b"from sympy import *"  # compiled by sympy before it parses a text
RECORD_BYTES = 256

Eval = Callable[..., Any]  # the type of the builtin `eval`

_record = mmap.mmap(-1, RECORD_BYTES)  # shared with forked processes, whose attempts count as well
_installed: tuple[str, ...] = ()  # folders from which modules may be imported; none can hold a model's text
_serving = False  # while VLMEvalKit is imported there is no answer yet, and its libraries start programs (`ldconfig`)


class Refused(BaseException):
    """A blocked attempt of VLMEvalKit. Derives from BaseException because VLMEvalKit catches Exception."""


def import_vlmeval(torchvision_hook: str) -> None:
    """Import VLMEvalKit and install the guards.

    Args:
        torchvision_hook: file of the hook that makes a CUDA build of torchvision importable with a CPU build of torch;
            "" for none.
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
    builtins.eval = _guarded_eval(builtins.eval)
    # multiprocessing starts interpreters with fork_exec, which raises no audit event
    _posixsubprocess.fork_exec = lambda *arguments: _refuse("started a program", "fork_exec")
    _installed = tuple(os.path.realpath(folder) + os.sep for folder in sys.path if folder)
    _serving = True


def clear_blocked_attempt() -> None:
    """Clear the record of a blocked attempt."""
    _record[:] = bytes(RECORD_BYTES)


def blocked_attempt() -> str:
    """Return the last blocked attempt since it was cleared, here or in a forked process; "" for none."""
    return _record[:].rstrip(b"\0").decode(errors="ignore")


def _refuse(action: str, detail: str) -> NoReturn:
    """Record and block an attempt."""
    reason = f"VLMEvalKit would have {action} ({detail})"
    _record[:] = reason.encode()[:RECORD_BYTES].ljust(RECORD_BYTES, b"\0")
    raise Refused(reason)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook that blocks the events in `FORBIDDEN`."""
    if event not in FORBIDDEN or (not _serving and event not in NETWORK):
        return
    if event == "compile":
        source, filename = arguments
        if source == BEFORE_SYMPY or _may_compile(sys._getframe(1), os.fsdecode(filename or "<string>")):
            return
    _refuse(FORBIDDEN[event], event)


def _may_compile(caller: FrameType | None, filename: str = "<string>") -> bool:
    """Return whether code is compiled by `_safe_value`, by a code generator, or to import an installed module."""
    assert caller is not None
    if caller.f_code is _safe_value.__code__:
        return True
    if caller.f_globals is globals() and caller.f_back is not None:  # `guarded_eval`: look at its caller
        caller = caller.f_back
    if caller.f_globals.get("__name__") in CODE_GENERATORS:
        return True
    while caller is not None and caller.f_code.co_filename != IMPORTING:
        caller = caller.f_back
    return caller is not None and (filename[0] == "<" or os.path.realpath(filename).startswith(_installed))


def _guarded_eval(original: Eval) -> Eval:
    """Return a replacement of `eval` that evaluates only literals and arithmetic."""

    def guarded_eval(source: Any, *scopes: Any, **named_scopes: Any) -> Any:
        frame = sys._getframe(1)
        scopes = tuple(frame.f_globals if scope is None else scope for scope in (*scopes, *named_scopes.values()))
        scopes = scopes or (frame.f_globals, frame.f_locals)
        if not isinstance(source, str) or _may_compile(frame):
            return original(source, *scopes)
        return _safe_value(original, source, scopes)

    return guarded_eval


def _safe_value(original: Eval, source: str, scopes: tuple[Any, ...]) -> object:
    """Return the value of a literal or of arithmetic.

    Raises:
        SyntaxError, NameError: as `eval` raises them for prose and for unknown names.
        Refused: the text would call or access something.
    """
    tree = ast.parse(source.lstrip(" \t"), mode="eval")
    nodes = list(ast.walk(tree))
    names = {name: value for scope in (vars(builtins), *scopes) for name, value in scope.items()}
    is_arithmetic = all(isinstance(node, ARITHMETIC) for node in nodes)
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    is_safe = all(isinstance(node, ast.Name) and _is_sympy(node.id, names.get(node.id)) for node in functions)
    if is_arithmetic and is_safe and not any(isinstance(node, SLOW) for node in nodes):
        return original(compile(tree, "<arithmetic>", "eval"), *scopes)
    unknown = [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in names]
    if is_arithmetic and unknown:
        raise NameError(f"name {unknown[0]!r} is not defined")
    try:
        return ast.literal_eval(tree)
    except ValueError:
        _refuse("run text as code", f"eval of {source[:60]!r}")


def _is_sympy(name: str, value: object) -> bool:
    return name in SYMPY and str(getattr(value, "__module__", "")).startswith("sympy.")
