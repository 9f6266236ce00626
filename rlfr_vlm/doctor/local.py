"""All checks of one machine."""

from collections.abc import Sequence
from pathlib import Path

from rlfr_vlm.doctor.checks import Check
from rlfr_vlm.doctor.gpus import check_gpus
from rlfr_vlm.doctor.keys import check_keys
from rlfr_vlm.doctor.machine import check_disks, check_memory, check_shared_memory
from rlfr_vlm.doctor.network import check_host_name, check_port
from rlfr_vlm.doctor.place import Place
from rlfr_vlm.doctor.versions import check_packages, check_python
from rlfr_vlm.doctor.vision_import import check_torchvision


def check_machine(place: Place, output_dir: Path, ports: Sequence[int]) -> list[Check]:
    """Look at this machine; of several processes on it only the first does, for all."""
    if not place.first_here:
        return []
    return [
        check_python(), *check_packages(), *check_gpus(), check_torchvision(), *check_disks(output_dir),
        *check_shared_memory(), check_memory(), *check_keys(), check_host_name(place),
        *(check_port(port) for port in ports),
    ]  # fmt: skip
