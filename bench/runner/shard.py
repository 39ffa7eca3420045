"""A fixed share of a suite's cases, for those who divide them among hosts by hand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import UserError
from bench.runner.plan import Planned


@dataclass(frozen=True)
class Shard:
    """Share `number`, from 1, of `count`."""

    number: int
    count: int

    def of(self, planned: Sequence[Planned]) -> list[Planned]:
        """Return this share of cases; a case that starts from another is in that one's share.

        Cases count in their order, whether they are done or not, so that a share stays as it is.
        """
        shares: dict[str, int] = {}
        num_roots = 0
        for item in planned:
            parent = item.case.parent
            if parent is not None and parent.name in shares:
                shares[item.case.name] = shares[parent.name]
            else:
                shares[item.case.name] = num_roots % self.count + 1
                num_roots += 1
        return [item for item in planned if shares[item.case.name] == self.number]


def read_shard(text: str | None) -> Shard | None:
    """Read a share such as "2/8"; None stays None.

    Raises:
        UserError: if it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text.strip())
    if match is None or int(match[1]) > int(match[2]):
        raise UserError(f"shard takes K/N with K from 1 to N, such as 2/8, not {text!r}.")
    return Shard(int(match[1]), int(match[2]))
