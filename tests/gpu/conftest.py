"""Fixtures of the tests that run on a CPU with small sizes and on a GPU with larger ones, by the same assertions."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


def needs_cuda() -> None:
    """Skip the test where there is no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> "torch.device":
    """The CPU, and a GPU where there is one."""
    import torch

    if request.param == "cuda":
        needs_cuda()
    return torch.device(request.param)
