"""Cache of judge replies, shared across runs and keyed by judge. Replies that could not be parsed are not stored."""

import hashlib
import json
import sqlite3
import time
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonMapping


class VerdictCache:
    """An SQLite file that several processes may use at once."""

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
    def key(judge: str, body: JsonMapping) -> str:
        """Return a hash of the judge's identity and the whole request: prompt, answer and sampling settings."""
        return hashlib.sha256(json.dumps([judge, body], sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> tuple[str, str] | None:
        """Return the parsed value (a verdict or an extracted answer) and the raw reply, or None."""
        row = self._database.execute("SELECT verdict, reply FROM verdicts WHERE key = ?", (key,)).fetchone()
        return (row[0], row[1]) if row else None

    def put(self, key: str, judge: str, value: str, reply: str) -> None:
        """Store the parsed value of a reply and the raw reply."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
                (key, judge, value, reply.encode(errors="replace").decode(), time.time()),
            )

    def close(self) -> None:
        self._database.close()
