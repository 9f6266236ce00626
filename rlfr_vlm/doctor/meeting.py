"""Where the processes exchange what they found: torch's key-value store, which works before any collective does.

Rank 0 leads. It polls for what the others post, so that it can say who is missing; a collective could only time out.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rlfr_vlm.doctor.network import reach
from rlfr_vlm.doctor.place import Place
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store

POLL_SECONDS = 0.1
LEAVE_SECONDS = 5.0


class Meeting:
    """The store as one rank uses it."""

    def __init__(self, store: "Store", place: Place) -> None:
        self.store, self.place = store, place

    def post(self, topic: str, value: Any) -> None:
        """Give rank 0 this rank's word on `topic`; `value` is JSON."""
        self.store.set(f"{topic}/{self.place.rank}", json.dumps(value))

    def collect(self, topic: str, seconds: float, ranks: Iterable[int] | None = None) -> dict[int, Any]:
        """Rank -> what it posted. A rank that posts nothing within `seconds` is absent."""
        waiting = list(range(self.place.world) if ranks is None else ranks)
        found: dict[int, Any] = {}
        deadline = time.monotonic() + seconds
        while True:
            for rank in [rank for rank in waiting if self.store.check([f"{topic}/{rank}"])]:
                found[rank] = json.loads(self.store.get(f"{topic}/{rank}"))
                waiting.remove(rank)
            if not waiting or time.monotonic() >= deadline:
                return dict(sorted(found.items()))
            time.sleep(POLL_SECONDS)

    def tell(self, topic: str, value: Any) -> None:
        """Rank 0's word to all others."""
        self.store.set(topic, json.dumps(value))

    def hear(self, topic: str, seconds: float) -> Any:
        """Wait for rank 0's word.

        Raises:
            UserError: rank 0 said nothing, or is gone.
        """
        deadline = time.monotonic() + seconds
        me = f"rank {self.place.rank} on {self.place.host}"
        try:
            while not self.store.check([topic]):
                if time.monotonic() >= deadline:
                    raise UserError(f"{me} waited {seconds:g} s for rank 0, which never arrived or fell silent. Look "
                                    "at rank 0's output, and raise --timeout if it starts slowly.")  # fmt: skip
                time.sleep(POLL_SECONDS)
            return json.loads(self.store.get(topic))
        except RuntimeError as error:  # torch.distributed.DistNetworkError is one
            raise UserError(f"{me} lost rank 0 ({_first_line(error)}). Look at rank 0's output.") from None

    def end(self, code: int) -> None:
        """Rank 0 lets the others go with its exit code, and waits for them: the store may live in its process."""
        self.tell("end", code)
        self.collect("left", LEAVE_SECONDS, range(1, self.place.world))

    def leave(self, seconds: float) -> int:
        """Another rank waits for the end. Returns the exit code of all."""
        code = int(self.hear("end", seconds))
        self.post("left", True)
        return code


def open_meeting(place: Place, timeout: float) -> Meeting:
    """Open the store on rank 0, join it on the others.

    Raises:
        UserError: rank 0's port does not answer within `timeout` seconds, or something else answers there.
    """
    from torch.distributed import PrefixStore, TCPStore

    listens = place.rank == 0 and not place.launcher_listens
    where = f"{place.address}:{place.port}"
    me = f"rank {place.rank} on {place.host}"
    if not listens and (problem := reach(place.address, place.port, timeout)):
        raise UserError(
            f"{me} cannot reach rank 0 at {where} within {timeout:g} s: {problem}. Start rank 0, check MASTER_ADDR "
            "and MASTER_PORT, and open that port in the firewall of rank 0's machine."
        )
    store, problem = _in_time(
        lambda: TCPStore(
            place.address, place.port, None, listens, timedelta(seconds=timeout), wait_for_workers=False,
            multi_tenant=listens,
        ),
        timeout,
    )  # fmt: skip
    if problem and listens:
        raise UserError(f"{me} cannot listen at {where}: {problem}. Set another MASTER_PORT on all machines.")
    if problem:
        raise UserError(f"{me}: what answers at {where} is not rank 0's store: {problem}. Set another MASTER_PORT on "
                        "all machines.")  # fmt: skip
    return Meeting(PrefixStore("rlfr-doctor", store), place)


def _in_time(make: Callable[[], "Store"], seconds: float) -> tuple[Any, str]:
    """The store, or why there is none. Facing a server of another kind, torch 2.13's client waits for ever."""
    made: list[Store] = []
    problems: list[str] = []

    def work() -> None:
        try:
            made.append(make())
        except RuntimeError as error:
            problems.append(_first_line(error))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds + 1)
    if made:
        return made[0], ""
    return None, problems[0] if problems else f"no greeting within {seconds:g} s"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
