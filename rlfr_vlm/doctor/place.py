"""Which of several processes this one is, from the variables that torchrun and accelerate set."""

import os
import socket
from dataclasses import dataclass

from rlfr_vlm.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where this process stands.

    Attributes:
        rank: its number, from 0.
        world: how many processes there are.
        local_rank: its number on its machine.
        local_world: how many run on its machine.
        host: name of its machine.
        address: MASTER_ADDR, or empty.
        port: MASTER_PORT, or 0.
        launcher_listens: the launcher holds the port, not rank 0 (torchrun's usual way).
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    host: str
    address: str
    port: int
    launcher_listens: bool

    @property
    def several(self) -> bool:
        """Whether other processes run beside this one."""
        return self.world > 1

    @property
    def several_machines(self) -> bool:
        """Whether some run on another machine."""
        return self.world > self.local_world

    @property
    def first_here(self) -> bool:
        """Whether this process looks at its machine on behalf of all that run on it."""
        return self.local_rank == 0


def read_place() -> Place:
    """This process's place.

    Raises:
        UserError: a variable has a value that cannot be, or one that is needed is not set.
    """
    world = _number("WORLD_SIZE", 1, 1)
    rank = _number("RANK", 0, 0)
    if rank >= world:
        raise UserError(f"RANK is {rank} and WORLD_SIZE is {world}; ranks run from 0 to WORLD_SIZE - 1.")
    port = _number("MASTER_PORT", 0, 0)
    if port > 65535:
        raise UserError(f"MASTER_PORT is {port}; ports run from 1 to 65535.")
    address = os.environ.get("MASTER_ADDR", "")
    if world > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {world}, but these are not set: {', '.join(missing)}. Start the processes with "
                "torchrun or `accelerate launch -m rlfr_vlm.cli doctor`, which set them, or set them by hand."
            )
    return Place(
        rank=rank, world=world, local_rank=_number("LOCAL_RANK", 0, 0),
        # Without a launcher's word the other ranks may be anywhere.
        local_world=min(_number("LOCAL_WORLD_SIZE", 1, 1), world),
        host=socket.gethostname(), address=address, port=port,
        launcher_listens=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )  # fmt: skip


def _number(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name} is {text!r}; it is a whole number, {least} or more.")
    return int(text)
