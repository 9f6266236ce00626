"""The scripted endpoint of the harness's tests."""

from tests.eval.conftest import serve  # noqa: F401
