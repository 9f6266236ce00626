"""The scripted endpoints of the harness, and an environment of the test's own."""

from tests.eval.conftest import alone, make_reaction, serve  # noqa: F401
