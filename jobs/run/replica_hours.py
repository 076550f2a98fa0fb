"""Replica hours of a run, over all calls of its job, and the block at which a budget ended it.

    <run>/replica-hours/<call>.json             hours of one call, overwritten during the call
    <run>/stop-at-10-replica-hours.json         created once: blocks that count at 10 budgeted hours

Durations differ between calls, so a run that is ended by a budget of hours stores the block at
which it ended: from then on its data set is fixed. Hours after the last commit of a killed call are
not counted.
"""

import json
import uuid
from typing import Any

from pipeline import storage


class HourLedger:
    """The replica hours of the run at `url`, summed over all calls."""

    def __init__(
        self, url: str, budget_hours: float, client: storage.Client = storage.DEFAULT_CLIENT
    ) -> None:
        """Reads the hours of previous calls."""
        self._url = url
        self._budget_hours = budget_hours
        self._client = client
        self._own_url = storage.join(url, "replica-hours", f"{uuid.uuid4().hex}.json")

        self._previous_hours = 0.0
        for file in client.list_objects(storage.join(url, "replica-hours")):
            self._previous_hours += self._read(file.url)["replica_hours"]

    def used_up(self, replica_hours: float) -> bool:
        """Stores the hours of this call and returns whether the budget is used up."""
        if replica_hours:
            self._client.overwrite(
                self._own_url, json.dumps({"replica_hours": replica_hours}).encode()
            )
        return self._previous_hours + replica_hours >= self._budget_hours

    def stop_at(self, blocks: int) -> None:
        """Stores the block at which the budget ended the run, if none is stored yet."""
        self._client.put_if_absent(self._stop_url, (json.dumps({"blocks": blocks}) + "\n").encode())

    def stopped_at(self) -> int | None:
        """Returns the number of blocks that count; None while the budget has not ended the run."""
        if self._client.stat(self._stop_url) is None:
            return None
        return int(self._read(self._stop_url)["blocks"])

    @property
    def _stop_url(self) -> str:
        return storage.join(self._url, f"stop-at-{self._budget_hours:g}-replica-hours.json")

    def _read(self, url: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._client.read(url)[0])
        return content
