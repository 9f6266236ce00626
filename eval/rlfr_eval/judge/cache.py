"""Replies that were paid for once: shared across runs, never across judges. What could not be read is not kept."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError


class VerdictCache:
    """An SQLite file; safe for several processes at once."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS verdicts "
                "(key TEXT PRIMARY KEY, judge TEXT, verdict TEXT, reply TEXT, time REAL)"
            )
            self._database.execute("SELECT key, judge, verdict, reply, time FROM verdicts LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"Cannot use the judge's cache {path}: {error}. Delete it; verdicts in runs are kept."
            ) from None

    @staticmethod
    def key(judge: str, body: Mapping[str, Any]) -> str:
        """Hash of the judge that is served and of the whole request: prompt, question, golds, prediction, settings."""
        return hashlib.sha256(json.dumps([judge, body], sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> tuple[str, str] | None:
        """What was read from the reply (a verdict, an extracted answer), and the raw reply."""
        found = self._database.execute("SELECT verdict, reply FROM verdicts WHERE key = ?", (key,)).fetchone()
        return (found[0], found[1]) if found else None

    def put(self, key: str, judge: str, value: str, reply: str) -> None:
        """Keep what was read from a reply."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
                (key, judge, value, reply.encode(errors="replace").decode(), time.time()),
            )

    def close(self) -> None:
        self._database.close()
