"""[report]: the page that a night leaves for people."""

from __future__ import annotations

from pydantic import Field

from recsys.settings.section import Section


class ReportSettings(Section):
    """The page that a night leaves for people."""

    enabled: bool = True  # a page a night, in the warehouse and in MLflow
    users: int = Field(default=10, ge=0, le=100)  # users shown with histories and lists, and as many failures
    show_user_ids: bool = False  # ids as the log has them, in pages, records and MLflow; False: keyed hashes

    @property
    def described(self) -> int:
        """Users that evaluation describes for the page."""
        return self.users if self.enabled else 0
