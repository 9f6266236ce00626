"""Names that resolve, ports that are free, the address where processes meet."""

import errno
import socket
import time

from rlfr_vlm.doctor.checks import Check, fail, ok, warn
from rlfr_vlm.doctor.place import Place

REACH_SECONDS = 5.0


def check_host_name(place: Place) -> Check:
    """Whether this machine's own name has an address. gloo and vLLM look it up to choose a network interface."""
    address, problem = resolve(place.host)
    remedy = f"add {place.host} to /etc/hosts, or set GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME and VLLM_HOST_IP"
    if problem:
        status = fail if place.several_machines else warn
        return status("host name", f"{place.host} does not resolve: {problem}", remedy)
    if place.several_machines and address.startswith("127."):
        return warn("host name", f"{place.host} resolves to {address}, which other machines cannot reach", remedy)
    return ok("host name", f"{place.host} resolves to {address}")


def resolve(name: str) -> tuple[str, str]:
    """The address of a name, or what is wrong with it."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]), ""
    except OSError as error:
        return "", error.strerror or str(error)
    except UnicodeError:
        return "", "it is not a host name"


def check_port(port: int, topic: str = "port", remedy: str = "end that process or choose another port") -> Check:
    """Whether a server could listen on `port` of this machine."""
    problem = port_problem(port)
    return fail(f"{topic} {port}", problem, remedy) if problem else ok(f"{topic} {port}", "free")


def port_problem(port: int) -> str:
    """Why one cannot listen on `port`; empty when one can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # As servers do: a connection that was closed a moment ago does not block the port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
            server.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"in use by {holder(port)}"
            return f"cannot be used: {error.strerror}"
    return ""


def holder(port: int) -> str:
    """Name and number of the process that listens on `port`. Never its arguments: they may hold keys."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="inet"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return "a process that this user may not see"


def check_meeting_place(place: Place) -> list[Check]:
    """MASTER_ADDR and MASTER_PORT, when set: the name resolves, and the port is free on rank 0, reachable elsewhere.

    The ports are tested before rank 0 listens; when several processes run, meeting is the test of the other ranks.
    """
    if not place.address and not place.port:
        return []
    checks = []
    if place.address:
        address, problem = resolve(place.address)
        if problem:
            return [fail("MASTER_ADDR", f"{place.address} does not resolve: {problem}",
                         "set it to rank 0's host name or address, the same on all machines")]  # fmt: skip
        checks.append(_check_address(place, address))
    if not place.port:
        return checks
    if place.launcher_listens:
        return [*checks, ok("MASTER_PORT", f"{place.port}, held by the launcher")]
    if place.rank == 0:
        return [*checks, check_port(place.port, "MASTER_PORT", "end that process or set another MASTER_PORT on all "
                                    "machines")]  # fmt: skip
    if place.address and not place.several:
        problem = reach(place.address, place.port, REACH_SECONDS)
        found = f"{place.address}:{place.port} does not answer: {problem}"
        checks.append(fail("MASTER_PORT", found, "start rank 0 and open the port in its firewall") if problem
                      else ok("MASTER_PORT", f"{place.address}:{place.port} answers"))  # fmt: skip
    return checks


def reach(host: str, port: int, seconds: float) -> str:
    """Try to connect until it succeeds or `seconds` are over; return the last problem, or an empty string."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(0.1, left)):
                return ""
        except OSError as error:
            problem = error.strerror or str(error)
        if time.monotonic() + 0.2 >= deadline:
            return problem
        time.sleep(0.2)


def _check_address(place: Place, address: str) -> Check:
    found = f"{place.address} resolves to {address}"
    if place.several_machines and address.startswith("127."):
        return warn("MASTER_ADDR", f"{found}, which other machines cannot reach",
                    "set it to rank 0's host name or address, unless all ranks run here")  # fmt: skip
    if place.rank == 0 and not place.launcher_listens and not _is_ours(address):
        return warn("MASTER_ADDR", f"{found}, which is not an address of {place.host}, where rank 0 runs",
                    "set it to an address of rank 0's machine, unless it is forwarded there")  # fmt: skip
    return ok("MASTER_ADDR", found)


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
