"""Ranks that are missing, differ, or fail in the all-reduce are named."""

import time

from rlfr_vlm.doctor import checks, rank_checks
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check
from tests.doctor.helpers import rank_info


def test_missing_ranks_are_named_with_the_machine_of_their_neighbours():
    here = rank_info(world_size=6, local_world_size=2, master_addr="a", master_port=29500)
    found = rank_checks.check_arrivals({0: "a", 1: "a", 3: "b"}, here, 60)
    assert [check.found.split(" never")[0] for check in found] == [
        "rank 2 of 6 (on b)",
        "rank 4 of 6 (machine 2, from which none arrived)",
        "rank 5 of 6 (machine 2, from which none arrived)",
    ]
    assert found[0].found.endswith("within 60 s; arrived: ranks 0, 1 on a; rank 3 on b")
    [silent] = rank_checks.check_silent_ranks({0: {}}, {0: "a", 3: "b"}, "its checks")
    assert "rank 3 on b arrived, then fell silent" in silent.found


def report(host: str, trl: str = "1", local_rank: int = 0, gpus: int = 0, found: tuple[Check, ...] = ()) -> dict:
    return {
        "host": host,
        "local_rank": local_rank,
        "gpus": gpus,
        "versions": {"trl": trl, "x": "1"},
        "checks": checks.as_rows(found),
    }


def test_the_rank_that_differs_from_most_is_named():
    [check] = rank_checks.check_versions_agree({0: report("a", "2"), 1: report("a"), 2: report("b")})
    assert check.topic == "same trl" and check.found == "rank 0 on a has 2, rank 1 on a; rank 2 on b has 1"
    [half] = rank_checks.check_versions_agree({0: report("a", "2"), 1: report("b", "1")})
    assert half.found == "rank 1 on b has 1, rank 0 on a has 2"
    [same] = rank_checks.check_versions_agree({0: report("a"), 1: report("b")})
    assert same.status == OK


def test_other_machines_findings_are_shown_once_with_their_ranks():
    full, none = checks.fail("disk", "1 GB", "free some"), checks.ok("memory", "9 GB")
    found = rank_checks.merge_machine_checks(
        {
            0: report("a", found=(full,)),
            1: report("a", found=(full,)),
            2: report("b", found=(full, none)),
            3: report("c", found=(full,)),
        },
        "a",
    )
    assert found == [full.at("rank 2 on b, rank 3 on c")]


def test_ranks_without_a_gpu_of_their_own_are_named():
    cards = {0: report("a", gpus=2), 1: report("a", local_rank=1, gpus=2)}
    assert rank_checks.choose_backend(cards) == ("nccl", [])
    assert rank_checks.choose_backend({0: report("a"), 1: report("b")}) == ("gloo", [])
    backend, [check] = rank_checks.choose_backend(cards | {2: report("b", local_rank=1, gpus=1)})
    assert backend == "gloo" and check.found == "rank 2 on b has none (rank 2: LOCAL_RANK 1 of 1 GPUs)"


def test_a_wrong_sum_and_a_broken_link_are_named():
    hosts = {0: "a", 1: "b"}
    good = {"stage": "done", "error": "", "total": [3.0, 3.0], "seconds": 0.1}
    [fine] = rank_checks.check_all_reduce({0: good, 1: good | {"seconds": 0.064}}, hosts, "gloo")
    # The slowest rank counts: 2 * (2 - 1) / 2 * 67.1 MB / 0.1 s.
    assert fine.status == OK and "64 MB takes 0.1000 s, 0.67 GB/s" in fine.found
    assert rank_checks.check_all_reduce({0: good, 1: good}, hosts, "nccl")[0].status == WARN
    [wrong] = rank_checks.check_all_reduce({0: good, 1: good | {"total": [3.0, 4.0]}}, hosts, "gloo")
    assert wrong.status == FAIL and wrong.found == "rank 1 on b got [(3.0, 4.0)], the sum is 3"
    [broken] = rank_checks.check_all_reduce({0: good, 1: good | {"stage": "x", "error": "refused"}}, hosts, "gloo")
    assert broken.found == "rank 1 on b at x: refused"
    assert "rank 1 on b died or hangs" in rank_checks.check_all_reduce({0: good}, hosts, "gloo")[0].found


def test_a_collective_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(rank_checks, "_all_reduce", lambda result, *rest: time.sleep(3))
    result, hangs = rank_checks.run_all_reduce(None, rank_info(), "nccl", 0.2)
    assert hangs and (result["stage"], result["error"]) == ("forming the group", "not done within 0.2 s")
