"""A rank, secrets and disk usage for tests of `rlfr doctor`."""

import shutil
from collections import namedtuple

from rlfr_vlm.doctor.machine import KEYS
from rlfr_vlm.doctor.ranks import RankInfo

SECRET = "sk-0123456789abcdef"
SECRETS = {name: f"{SECRET}{number}" for number, name in enumerate(KEYS)}
RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
)
Usage = namedtuple("Usage", "total used free")


def rank_info(**values) -> RankInfo:
    """The only rank on machine a, but for `values`."""
    single = {
        "rank": 0,
        "world_size": 1,
        "local_rank": 0,
        "local_world_size": 1,
        "host": "a",
        "master_addr": "",
        "master_port": 0,
        "launcher_listens": False,
    }
    return RankInfo(**single | values)


def set_disk_usage(monkeypatch, free: float, total: float = 1e12) -> None:
    """Make every disk have this size, in bytes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(int(total), int(total - free), int(free)))
