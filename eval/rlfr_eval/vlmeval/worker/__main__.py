"""Start the worker by its path: `PYTHON -I .../worker/__main__.py`.

The interpreter is VLMEvalKit's, where this project is not installed. `rlfr_eval` is registered by its folder instead
of through `sys.path`, so that packages of one environment are never imported in the other.
"""

import contextlib
import ctypes
import os
import signal
import sys
import types
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h

if __name__ == "__main__":
    # Linux: end with the thread that started this process, also while VLMEvalKit is imported, which takes seconds.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    package = types.ModuleType("rlfr_eval")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["rlfr_eval"] = package
    from rlfr_eval.vlmeval.worker.loop import main

    main(sys.argv[1:])
    os._exit(0)  # the libraries take seconds to clean up, and nothing here needs it
