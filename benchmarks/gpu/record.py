"""The results of a check: `results.json` and `index.html`, written anew after every change, for any end."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.page import page_of
from benchmarks.gpu.parts import NAMES, Part
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_json, write_text

RESULTS_FILE, PAGE_FILE = "results.json", "index.html"
DONE, FAILED, TIMED_OUT, NOT_RUN, RUNNING, STOPPED = "done", "failed", "timed out", "not run", "running", "stopped"


class Record:
    """What is known so far.

    Attributes:
        content: of `results.json`.
    """

    def __init__(self, out: Path, machine: JsonObject, cpu: bool) -> None:
        """Begin, or go on with what `out` has.

        Raises:
            UserError: it has results of another card, or of the other mode.
        """
        self.out = out
        self.content: JsonObject = {"machine": machine, "cpu": cpu, "notes": [], "parts": {}}
        if not (path := out / RESULTS_FILE).is_file():
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            device, parts = device_of(before), dict(before["parts"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is not a results file of a check. Name another --out, or remove it.") from None
        if device != device_of(self.content):
            raise UserError(
                f"{out} has results of {device}, and this is {device_of(self.content)}. Name another --out."
            )
        self.content["parts"] = parts

    def is_done(self, name: str) -> bool:
        """Whether a part has ended as it should."""
        return self.state(name) == DONE

    def state(self, name: str) -> str | None:
        """State of a part; None if nothing is known of it."""
        state: str | None = self.content["parts"].get(name, {}).get("state")
        return state

    def note(self, text: str) -> None:
        """Add a line to the head of the page."""
        self.content["notes"].append(text)

    def begin(self, part: Part, limit: float, command: Sequence[str]) -> None:
        """Write that a part runs now."""
        self.content["parts"][part.name] = {
            "what": part.what,
            "state": RUNNING,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "limit": round(limit, 1),
            "command": list(command),
            "commit": self.content["machine"].get("commit"),
        }
        self.write()

    def update(self, part: Part, results: Path) -> None:
        """Take over what the part's own file has so far, if it can be read."""
        try:
            values = json.loads(results.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        found = next((values[key] for key in part.keys if key in values), None)
        if found is not None and found != self.content["parts"][part.name].get("result"):
            self.content["parts"][part.name]["result"] = found
            self.write()

    def end(self, part: Part, state: str, seconds: float, last_lines: Sequence[str] = ()) -> None:
        """Write how a part ended.

        Args:
            last_lines: of its log, if it did not end as it should.
        """
        self.content["parts"][part.name] |= {"state": state, "seconds": round(seconds, 1)}
        if last_lines:
            self.content["parts"][part.name]["last_lines"] = list(last_lines)
        self.write()

    def not_run(self, part: Part, reason: str) -> None:
        """Write why a part did not run; what an earlier check measured stays."""
        if self.state(part.name) in (None, NOT_RUN):
            self.content["parts"][part.name] = {"what": part.what, "state": NOT_RUN, "reason": reason}
        self.write()

    def write(self) -> None:
        """Write both files, parts in order of value; without jinja2 the page is left out, which is printed."""
        known = self.content["parts"]
        self.content["parts"] = {name: known[name] for name in [*NAMES, *known] if name in known}
        write_json(self.out / RESULTS_FILE, self.content)
        try:
            write_text(self.out / PAGE_FILE, page_of(self.content))
        except ImportError as error:
            print(f"gpu_check: no page is written: {error}", file=sys.stderr)


def device_of(content: JsonObject) -> str:
    """The card that results are of, or the CPU of a dry run."""
    return "a dry run on a CPU" if content["cpu"] else str(content["machine"]["card"])
