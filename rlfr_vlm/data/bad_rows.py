"""Count and log bad rows while a data set is read, and stop the run if there are too many."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.errors import UserError

logger = logging.getLogger(__name__)
MAX_LOGGED = 10  # bad rows that are logged; all are counted
CHANCE = 1e-4  # probability below which a count of bad rows is taken to be above the limit


@dataclass
class BadRows:
    """Counts of one process. Each DataLoader worker counts separately; the trainer logs replaced rows of all workers.

    Attributes:
        limit: largest accepted share of bad rows among those read.
        size: number of rows in the data set.
        read, bad: numbers of the rows read; a row that is read twice counts once.
        reasons: number of bad rows by reason.
        handling: what is done with bad rows, for the log.
        source: label of the data set in a mixture, for messages.
    """

    limit: float
    size: int
    read: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    handling: str = "replaced by another row"
    source: str = ""

    def record(self, number: int, error: BadRow | None, place: str = "") -> None:
        """Count a row that was read.

        Args:
            number: of the row.
            error: None for a good row.
            place: names the row in messages; by its number if it is empty.

        Raises:
            UserError: the share of bad rows is above the limit.
        """
        self.read.add(number)
        if error is None or number in self.bad:
            return
        self.bad.add(number)
        place = place or f"row {number}"
        if len(self.bad) <= MAX_LOGGED:
            logger.warning("%s is bad and is %s: %s", place, self.handling, error)
        self.reasons[error.reason] += 1
        if self._above_limit():
            of_source = f" of {self.source}" if self.source else ""
            kinds = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise UserError(
                f"{len(self.bad)} of {len(self.read)} rows{of_source} read so far are bad ({kinds}), more than "
                f"bad_row_limit {self.limit}. {place[0].upper() + place[1:]}: {error.detail}. `rlfr check-data` lists "
                "all bad rows and writes a clean data set."
            )

    def _above_limit(self) -> bool:
        """Whether the share is above the limit: of all rows, or of so many that chance does not explain it."""
        bad, read = len(self.bad), len(self.read)
        if bad <= self.limit * read:
            return False
        if read >= self.size:
            return True
        from scipy.stats import binom

        return bool(binom.sf(bad - 1, read, self.limit) < CHANCE)
