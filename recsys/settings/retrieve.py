"""[retrieve]: the candidate table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.settings.id_list import IdListSettings
from recsys.settings.places import IN_DATA
from recsys.settings.section import Section


class RetrieveSettings(Section):
    """The candidate table."""

    k: int = Field(default=100, ge=1)  # candidates a user
    # the search among the model's vectors: "exact" compares a user with every item; "auto" takes an approximate index
    # where that saves time and `recall` is reached; or an index of FAISS by its factory string, such as "IVF1024,SQ8"
    index: str = Field(default="auto", min_length=1)
    # (above 0, to 1) of the k best items: the share that an approximate index must find for users of the night, or the
    # search is exact
    recall: float = Field(default=0.98, gt=0, le=1)
    # what may be recommended: what the newest reading of the catalogue lists, or all that the bundle knows; without a
    # catalogue all; a catalogue that brings new items alone needs "all"
    items: Literal["catalogue", "all"] = "catalogue"
    exclude_seen: bool = True
    # every user of the log gets k rows: users of whom the model knows nothing, and places that it leaves empty, by text
    # of what the user had, then by what sells now; False: the model's rows alone
    fallback: bool = True
    # fallback only: a categorical attribute of [users]; what sells now is counted for each value of it
    segment: str | None = None
    # fallback only: the id under which the list for users whom nobody knows is written, of the type of the log's ids;
    # None: no list
    unknown_user: str | None = None
    # the ids of the users that get rows: a file under data_root (txt, csv, parquet), or a table such as
    # { source = "shop.db", query = "select ..." }; None: all of the log
    users: Annotated[str | IdListSettings | None, IN_DATA] = None
    batch_size: int = Field(default=1024, ge=1)  # users a search
