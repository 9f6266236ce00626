"""Tests of `rlfr doctor` start without the variables of a launcher."""

import pytest

from tests.doctor.helpers import RANK_VARIABLES


@pytest.fixture(autouse=True)
def single_process(monkeypatch):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
