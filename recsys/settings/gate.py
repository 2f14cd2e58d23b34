"""[gate]: what keeps a night's work from being published."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field, model_validator

from recsys.settings.section import Section, Share

GateMetric = Annotated[str, Field(pattern=r"^(hr|recall|precision|ndcg|mrr|map)@[1-9]\d*$")]


class GateSettings(Section):
    """The gate: figures against the champion and the baselines, and checks of the data and of what was built.

    A limit that is "off" (or "none") switches its check off. The defaults keep back what is wrong on any data; they are
    loose enough for a shop's quiet days and for its busiest one.
    """

    enabled: bool = True  # False: every night is published, without a verdict

    # --- figures
    # (metric@cut-off) that decide, measured on the test part; a metric needs a value for each user
    metrics: tuple[GateMetric, ...] = Field(default=("ndcg@10",), min_length=1)
    champion: bool = True  # not worse than what is served now, measured on today's test part
    baselines: bool = True  # not worse than a baseline of evaluate.baselines
    # (of the metric, 0 or more) how much worse is accepted; a loss counts if its whole interval is below -tolerance
    tolerance: float = Field(default=0.0, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)  # of all comparisons of a night together (Bonferroni)

    # (1 or more) users of the test part; a night with fewer is kept back. Off: it is published, and its verdict says
    # that nothing was measured where they are fewer than figures need
    min_test_users: int | None = Field(default=None, ge=1)

    # --- data
    # (0 to 1) of the new rows of a table; sources.max_rejected_share looks at all rows, in which a bad day drowns
    max_rejected_share: Share | None = 0.05
    # (times the median of the last nights) new rows; the days of Online Retail II lie between 0.15 and 2.2, a sale may
    # bring far more
    min_volume: float | None = Field(default=0.05, ge=0)
    max_volume: float | None = Field(default=20.0, gt=0)
    max_age_hours: float | None = Field(default=None, gt=0)  # of the newest event; off, as logs of the past are sound
    # (population stability index) of new rows to the weeks before; above 0.25 is the usual word for a major shift. What
    # chance explains, for so few users, is added to the limit
    max_drift: float | None = Field(default=0.25, gt=0)

    # of the items that the catalogue listed for the table served now: share that it still lists after a day; the limit
    # follows the days since. A range changes by a few percent a day, and a file that was cut off loses more
    min_listed: Share | None = 0.8

    # --- what was built
    min_users: Share | None = 0.5  # of the users with a history: share with candidates; the others have seen everything
    # of the users in the table served now: share that the new one has, too; users leave by `recsys forget` or a filter
    min_former_users: Share | None = 0.8
    min_full_lists: Share | None = 0.9  # rows of the table, of all that k and the shelf allow
    # of the values of an attribute: share that training has not seen; more means the column is written in another way
    max_unseen: Share | None = 0.5
    # of the lists by vectors against products with all items; where retrieve.recall is lower, .01 less than that
    min_index_recall: Share | None = 0.95
    # of the first 10 of a list: share that is also among the 10 most popular items; sound nights have less than half
    max_popularity: Share | None = 0.8
    max_same_lists: Share | None = 0.8  # of the first 10 of a list: share that another user's list has, too

    # --- too good to be true
    max_over_validation: float | None = Field(default=1.5, gt=1)  # (times) test to validation; both are held out alike
    max_jump: float | None = Field(default=3.0, gt=1)  # (times) the champion's figure; a leak multiplies it
    max_over_baselines: float | None = Field(default=5.0, gt=1)  # (times) the best personal baseline's figure
    # of the release's own hit rate: its table's hit rate among the new events; the future is harder
    min_kept_promise: Share | None = 0.2

    @model_validator(mode="before")
    @classmethod
    def _off_is_none(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if name in optional and value in ("off", False) else value for name, value in given.items()}
