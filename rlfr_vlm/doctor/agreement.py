"""What the ranks' reports say together: who is missing, whose versions differ, what other machines found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlfr_vlm.doctor.checks import OK, Check, fail, ok
from rlfr_vlm.doctor.place import Place

Report = Mapping[str, Any]  # what a rank posts: host, versions, gpus, local_rank, checks


def check_arrivals(hosts: Mapping[int, str], place: Place, seconds: float) -> list[Check]:
    """Every rank, or a line for each that is missing.

    Args:
        hosts: rank -> host of those that arrived.
        place: rank 0's.
        seconds: how long rank 0 waited.
    """
    arrived = named(hosts, hosts)
    missing = [rank for rank in range(place.world) if rank not in hosts]
    if not missing:
        return [ok("ranks", f"all {place.world} arrived: {arrived}")]
    return [
        fail("ranks", f"rank {rank} of {place.world} ({_likely_host(rank, hosts, place)}) never arrived within "
             f"{seconds:g} s; arrived: {arrived}",
             f"look at the output of rank {rank}; start it with MASTER_ADDR={place.address} MASTER_PORT={place.port} "
             f"and open that port in the firewall of {place.host}; raise --timeout if it starts slowly")
        for rank in missing
    ]  # fmt: skip


def check_silence(reports: Mapping[int, Report], hosts: Mapping[int, str], during: str) -> list[Check]:
    """A line for each rank that arrived and then posted nothing."""
    return [
        fail("ranks", f"rank {rank} on {host} arrived, then fell silent during {during}",
             f"look at the output of rank {rank} on {host}: it has died or hangs")
        for rank, host in hosts.items() if rank not in reports
    ]  # fmt: skip


def check_versions_agree(reports: Mapping[int, Report]) -> list[Check]:
    """The same packages everywhere. Who differs from most is named; of two halves, who differs from rank 0."""
    hosts = {rank: report["host"] for rank, report in reports.items()}
    checks = []
    for name in sorted({name for report in reports.values() for name in report["versions"]}):
        found = {rank: report["versions"].get(name, "none") for rank, report in reports.items()}
        counts = Counter(found.values())
        usual = max(counts, key=lambda version: (counts[version], version == found[min(found)]))
        odd = {rank: version for rank, version in found.items() if version != usual}
        for version in sorted(set(odd.values())):
            guilty = [rank for rank in odd if odd[rank] == version]
            checks.append(
                fail(f"same {name}", f"{named(guilty, hosts)} has {version}, {named(_others(found, usual), hosts)} "
                     f"has {usual}", "make the environments equal: the same checkout, and `bash scripts/setup.sh` "
                     "with the same --extras on each machine, or one environment on a shared disk")
            )  # fmt: skip
    count = len(reports[min(reports)]["versions"])
    return checks or [ok("same versions", f"{count} versions, rlfr_vlm's sources among them, are equal on all "
                         f"{len(reports)} ranks")]  # fmt: skip


def choose_backend(reports: Mapping[int, Report]) -> tuple[str, list[Check]]:
    """nccl when every rank has a GPU of its own, else gloo, with a line for the ranks that stand out."""
    hosts = {rank: report["host"] for rank, report in reports.items()}
    without = [rank for rank, report in reports.items() if report["local_rank"] >= report["gpus"]]
    if not without:
        return "nccl", []
    if not any(report["gpus"] for report in reports.values()):
        return "gloo", []
    seen = ", ".join(f"rank {rank}: LOCAL_RANK {reports[rank]['local_rank']} of {reports[rank]['gpus']} GPUs"
                     for rank in without)  # fmt: skip
    return "gloo", [fail("a GPU for each rank", f"{named(without, hosts)} has none ({seen})", "start no more "
                         "processes than GPUs on a machine, and see what `rlfr doctor` says there")]  # fmt: skip


def merge_checks(reports: Mapping[int, Report], host: str) -> list[Check]:
    """What the other machines found that is not ok, machines with the same finding in one line.

    Args:
        reports: rank -> report; the checks of a machine are in the report of its first process.
        host: rank 0's machine, whose own checks are shown anyway.
    """
    own = {Check(**row) for row in reports[0]["checks"]}
    places: dict[Check, list[str]] = {}
    for rank, report in reports.items():
        for row in report["checks"] if rank else ():
            check = Check(**row)
            if check.status != OK and not (check in own and report["host"] == host):
                places.setdefault(check, []).append(f"rank {rank} on {report['host']}")
    return [check.at(", ".join(where)) for check, where in places.items()]


def named(ranks: Sequence[int] | Mapping[int, str], hosts: Mapping[int, str]) -> str:
    """Ranks with their hosts: 'ranks 0, 1 on a; rank 2 on b'."""
    groups: dict[str, list[int]] = {}
    for rank in ranks:
        groups.setdefault(hosts[rank], []).append(rank)
    return "; ".join(f"rank{'s' if len(group) > 1 else ''} {', '.join(map(str, group))} on {host}"
                     for host, group in groups.items())  # fmt: skip


def _others(found: Mapping[int, str], usual: str) -> list[int]:
    return [rank for rank, version in found.items() if version == usual]


def _likely_host(rank: int, hosts: Mapping[int, str], place: Place) -> str:
    """Launchers number ranks machine by machine, so a neighbour that arrived tells where a missing rank is."""
    machine = rank // place.local_world
    neighbours = {host for other, host in hosts.items() if other // place.local_world == machine}
    return f"on {' or '.join(sorted(neighbours))}" if neighbours else f"machine {machine}, from which none arrived"
