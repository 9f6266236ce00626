"""What VLMEvalKit must not do here, however it is called: reach a network, evaluate text, read somebody's `.env`.

Read in ms-vlmeval 0.0.20, which on import switches off the check of certificates and applies the `.env` beside its
package over the environment, and whose scoring calls `eval` on cells and on model answers.
"""

import ast
import builtins
import importlib.util
import os
import ssl
import sys
from typing import Any

NETWORK = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
EVALUATING = ("eval", "exec")
EVALUATED = "vlmeval"


class Refused(RuntimeError):
    """VLMEvalKit tried what it must not."""


def import_vlmeval(torchvision_hook: str) -> None:
    """Import VLMEvalKit behind the guards.

    Args:
        torchvision_hook: file of the hook that lets a torchvision for CUDA import beside a torch without; "" for none.
    """
    environment, context = dict(os.environ), ssl._create_default_https_context
    sys.addaudithook(_refuse_network)
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
    for name in EVALUATING:
        setattr(builtins, name, _guarded(name, getattr(builtins, name)))


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in NETWORK:
        raise Refused(f"the worker was about to use the network ({event})")


def _guarded(name: str, real: Any) -> Any:
    """`eval` as it was for everybody but VLMEvalKit, which gets literals read and nothing run."""

    def guarded(source: Any, *scopes: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        caller = frame.f_globals.get("__name__", "")
        if caller.partition(".")[0] != EVALUATED:
            return real(source, *(scopes or (frame.f_globals, frame.f_locals)), **named)
        if name == "exec":
            raise Refused(f"{caller} was about to run text as code")
        return ast.literal_eval(source if isinstance(source, str) else str(source))

    return guarded
