"""Host names, ports, the address where ranks meet, the shared folder."""

import os
import socket

import pytest

from rlfr_vlm.doctor import network
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check
from tests.doctor.helpers import rank_info
from tests.ports import free_port, held_port


@pytest.fixture
def listener():
    with held_port() as port:
        yield port


def test_a_port_in_use_is_named_with_its_holder(listener):
    used, free = network.check_port(listener), network.check_port(free_port())
    assert (used.status, free.status) == (FAIL, OK)
    assert used.topic == f"port {listener}" and f"(process {os.getpid()})" in used.found


def test_names_that_do_not_resolve(monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.check_host_name(rank_info()).status == WARN
    assert network.check_host_name(rank_info(world_size=2)).status == FAIL  # the other rank is on another machine
    [check] = network.check_master_address(rank_info(master_addr="head", master_port=29500))
    assert check.status == FAIL and check.found == "head does not resolve: Name or service not known"


def test_master_port_is_free_on_rank_0_and_reachable_from_other_ranks(listener):
    def port_check(**values) -> Check:
        return network.check_master_address(rank_info(master_addr="127.0.0.1", **values))[-1]

    used = port_check(master_port=listener)
    assert used.status == FAIL and used.topic == f"MASTER_PORT {listener}" and "in use by" in used.found
    assert port_check(master_port=listener, launcher_listens=True).status == OK
    assert port_check(master_port=listener, rank=1).found == f"127.0.0.1:{listener} answers"
    assert port_check(master_port=free_port()).status == OK
    assert network.check_master_address(rank_info()) == []
    assert network.connection_problem("127.0.0.1", free_port(), 0.3) == "Connection refused"


def test_an_address_of_another_machine_warns_on_rank_0():
    info = rank_info(master_addr="192.0.2.1", master_port=free_port())  # an address reserved for documentation
    address, port = network.check_master_address(info)
    assert address.status == WARN and "not an address of a, where rank 0 runs" in address.found
    assert port.status == OK


def test_a_single_process_checks_that_the_shared_folder_is_writable(tmp_path):
    assert network.check_folder_writable(tmp_path).status == OK
    assert list(tmp_path.iterdir()) == []
    assert network.check_folder_writable(tmp_path / "none").found.endswith(
        "cannot be written to: No such file or directory"
    )
