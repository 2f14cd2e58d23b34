"""[retention]: how long what a night leaves behind is kept."""

from __future__ import annotations

from pydantic import Field

from recsys.settings.section import Section


class RetentionSettings(Section):
    """Keeping of what nights leave behind: rows, bundles, pages, records, and their files and runs in MLflow.

    A night that is neither among the newest nor young enough goes. What is served and what a rollback would serve stay.
    Figures of a night stay in MLflow for longer, as `records_days` says.
    """

    enabled: bool = True  # at the end of each night; False: only `recsys gc` removes anything
    nights: int = Field(default=30, ge=1)  # newest ones that stay, whatever their age
    days: float = Field(default=30, ge=0)  # (days) a younger one stays, too, however many there are
    records_days: float = Field(default=400, ge=0)  # (days) older runs of MLflow and entries of the list of releases go
