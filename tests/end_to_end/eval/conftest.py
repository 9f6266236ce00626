"""The fixtures of tests/eval, for runs of `rlfr-eval` from end to end."""

from tests.eval.conftest import alone, make_reaction, once, run_eval, scores, serve, toy  # noqa: F401
from tests.eval.vlm.fixtures import fresh, healthy, impatient, lmu, one_process, vlm, whole_wemath  # noqa: F401
