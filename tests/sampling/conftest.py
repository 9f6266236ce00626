"""The scripted endpoint of the harness's tests."""

from tests.eval.conftest import once, serve  # noqa: F401
