"""How the service runs its jobs: options of all of them, GPUs, and which servers get keys."""

import os
from dataclasses import dataclass
from pathlib import Path

from rlfr_eval.service.requests import JobRequest
from rlfr_vlm.env_settings import Settings
from rlfr_vlm.servers.urls import same_server

TOKEN, KEYS = "RLFR_EVAL_TOKEN", ("RLFR_EVAL_API_KEY", "RLFR_EVAL_HEADERS")


@dataclass(frozen=True)
class ServiceOptions:
    """How the service runs its jobs.

    Attributes:
        folder: the service's folder.
        settings: of the harness, for masking and for notes about keys.
        parallel: jobs at a time.
        words: put before the options on each job's command line.
        devices: CUDA_VISIBLE_DEVICES of each of the parallel jobs; empty: that of the service.
        keys_for: addresses of servers that get the keys of `KEYS`. A request names the server, so that without this
            list anyone who may send one could have the keys sent to a server of his own.
    """

    folder: Path
    settings: Settings
    parallel: int = 1
    words: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    keys_for: tuple[str, ...] = ()

    def may_have_keys(self, request: JobRequest) -> bool:
        """Whether the server that a request names gets the keys."""
        return bool(request.base_url) and any(same_server(request.base_url, url) for url in self.keys_for)

    def environment(self, request: JobRequest, device: str) -> dict[str, str]:
        """Return the environment of a job's process."""
        inherited = {name: value for name, value in os.environ.items() if name != TOKEN}
        keys = {} if self.may_have_keys(request) else dict.fromkeys(KEYS, "")  # "" hides the value in .env, too
        return {**inherited, **keys, **({"CUDA_VISIBLE_DEVICES": device} if device else {})}

    def note(self, request: JobRequest) -> str:
        """Return what the log of a job says before its process begins."""
        kept = [name for name in KEYS if self.settings[name]]
        if not request.base_url or not kept or self.may_have_keys(request):
            return ""
        return f"note: {' and '.join(kept)} not sent to {request.base_url}, which is not among --keys-for"
