"""The page of a check: one self-contained file; jinja2 escapes all text."""

import shlex
import time
from pathlib import Path

from benchmarks.gpu.tables import table_of
from rlfr_vlm import __version__
from rlfr_vlm.files import JsonObject
from rlfr_vlm.page.html import render

TEMPLATES = Path(__file__).parent / "templates"
CLASSES = {"done": "good", "failed": "bad", "timed out": "bad"}  # all other states are unsure
UNKNOWN = "unknown"


def page_of(content: JsonObject) -> str:
    """The page as HTML."""
    machine, parts = content["machine"], content["parts"]
    card = "dry run on a CPU" if content["cpu"] else machine["card"]
    return render(
        "check.html",
        {},
        scripts=(),
        folders=[TEMPLATES],
        title=f"GPU check: {card}",
        sections=[("parts", "Parts"), ("machine", "Machine"), *((name, name) for name in parts)],
        cpu=content["cpu"],
        notes=content["notes"],
        rows=[_row(name, part) for name, part in parts.items()],
        facts=_facts(machine),
        parts=[_detail(name, part) for name, part in parts.items()],
        made=f"Made by rlfr-vlm {__version__}, {time.strftime('%Y-%m-%d %H:%M %z')}.",
    )


def _row(name: str, part: JsonObject) -> JsonObject:
    state = "running, or cut off" if part["state"] == "running" else part["state"]
    return {
        "name": name,
        "what": part["what"],
        "state": f"{state}: {part['reason']}" if "reason" in part else state,
        "kind": CLASSES.get(state, "unsure"),
        "seconds": _number(part.get("seconds")),
        "limit": _number(part.get("limit")),
    }


def _detail(name: str, part: JsonObject) -> JsonObject:
    return {
        **_row(name, part),
        "table": table_of(name, part["result"]) if "result" in part else None,
        "last_lines": "\n".join(part.get("last_lines", ())),
        "command": shlex.join(map(str, part.get("command", ()))),
        "started": part.get("started", ""),
        "commit": part.get("commit") or UNKNOWN,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _facts(machine: JsonObject) -> list[tuple[str, str]]:
    versions = machine.get("versions") or {}
    commit = machine.get("commit") or f"{UNKNOWN} (no git repository)"
    facts = {
        "card": machine.get("card"),
        "memory of the card, GB": machine.get("memory_gb"),
        "driver": machine.get("driver"),
        "CUDA of torch": machine.get("cuda"),
        "Python": machine.get("python"),
        "torch": machine.get("torch"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": f"{commit}, with changed files" if machine.get("changed_files") else commit,
    }
    return [(name, UNKNOWN if value is None else str(value)) for name, value in facts.items()]
