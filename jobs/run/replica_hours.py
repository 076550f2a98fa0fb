"""What replicas have cost a run so far, over all calls of the job that ran it.

And where a budget of hours ended it.

    <run>/replica-hours/<call>.json             hours of one call, written again as it goes on
    <run>/stop-at-10-replica-hours.json         created once: blocks that count at 10 budgeted hours

Time is not the same twice, so a run that a budget of hours ends writes down where: from then on its
data set is fixed, too. Hours since the last commit of a call that was killed are not known and not
counted.
"""

import json
import uuid
from typing import Any

from pipeline import storage


class HourLedger:
    """The hours of a run at `url`; this call's are added to those of calls before."""

    def __init__(
        self, url: str, budget_hours: float, client: storage.Client = storage.DEFAULT_CLIENT
    ) -> None:
        """Reads what calls before this one have spent."""
        self._url, self._budget_hours = url, budget_hours
        self._client = client
        self._own_url = storage.join(url, "replica-hours", f"{uuid.uuid4().hex}.json")
        spent = [
            self._read(stored.url)["replica_hours"]
            for stored in client.list_objects(storage.join(url, "replica-hours"))
        ]
        self._before = float(sum(spent))

    def used_up(self, replica_hours: float) -> bool:
        """Notes the hours of this call; returns whether the budget is used up."""
        if replica_hours:
            self._client.overwrite(
                self._own_url, json.dumps({"replica_hours": replica_hours}).encode()
            )
        return self._before + replica_hours >= self._budget_hours

    def stop_at(self, blocks: int) -> None:
        """Writes down where the budget ended the run, unless that is written already."""
        self._client.put_if_absent(self._stop_url, (json.dumps({"blocks": blocks}) + "\n").encode())

    def stopped_at(self) -> int | None:
        """Returns how many blocks count, once the budget has ended the run."""
        if self._client.stat(self._stop_url) is None:
            return None
        return int(self._read(self._stop_url)["blocks"])

    @property
    def _stop_url(self) -> str:
        return storage.join(self._url, f"stop-at-{self._budget_hours:g}-replica-hours.json")

    def _read(self, url: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._client.read(url)[0])
        return content
