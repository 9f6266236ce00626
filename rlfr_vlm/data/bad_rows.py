"""Bad rows met while reading: counted, named in the log, and too many of them stop the run."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.errors import UserError

logger = logging.getLogger(__name__)
SHOWN = 10  # bad rows that are named in the log; all are counted
ENOUGH_READ = 20  # rows read before a share of bad ones means anything, unless the data set is smaller


@dataclass
class BadRows:
    """Counts of one process. A DataLoader's workers each have their own; the trainer sees all replaced rows.

    Attributes:
        limit: largest share of bad rows among those read.
        size: rows of the data set.
        read, bad: row numbers seen; a row read again counts once.
        reasons: how many bad rows of each kind.
    """

    limit: float
    size: int
    read: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, number: int, error: BadRow | None) -> None:
        """Count a row.

        Raises:
            UserError: the share of bad rows is above the limit.
        """
        self.read.add(number)
        if error is None or number in self.bad:
            return
        self.bad.add(number)
        if len(self.bad) <= SHOWN:
            logger.warning("row %d is bad and replaced by another one: %s", number, error)
        self.reasons[error.reason] += 1
        enough = len(self.read) >= min(ENOUGH_READ, self.size)
        if enough and len(self.bad) > self.limit * len(self.read):
            kinds = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise UserError(
                f"{len(self.bad)} of {len(self.read)} rows read so far are bad ({kinds}), more than bad_row_limit "
                f"{self.limit}. Row {number}: {error.detail}. `rlfr check-data` lists all and writes a clean set."
            )
