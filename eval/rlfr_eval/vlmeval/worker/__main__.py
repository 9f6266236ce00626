"""Start the worker by its path: `PYTHON -I .../worker/__main__.py`.

The interpreter is VLMEvalKit's, where this project is not installed. `rlfr_eval` is registered by its folder instead
of through `sys.path`, so that packages of one environment are never imported in the other.
"""

import sys
import types
from pathlib import Path

if __name__ == "__main__":
    package = types.ModuleType("rlfr_eval")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["rlfr_eval"] = package
    from rlfr_eval.vlmeval.worker.loop import main

    main(sys.argv[1:])
