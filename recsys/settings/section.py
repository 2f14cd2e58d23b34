"""Base of every section of a configuration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Frozen, and strict about names: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), str_strip_whitespace=False)

    @classmethod
    def variant(cls, given: Any) -> type[Section]:
        """The class of the section that these plain values are of, where a key chooses between several."""
        return cls

    @classmethod
    def named(cls, given: Any) -> type[Section]:
        """The class of a section below this one that bears a name of the user's own."""
        return cls

    renamed: ClassVar[Mapping[str, str]] = {}  # keys' old names, which work with a warning until version 0.3

    @model_validator(mode="before")
    @classmethod
    def _old_names_still_work(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        old = [name for name in cls.renamed if name in given]
        for name in old:
            new = cls.renamed[name]
            if new in given:
                raise ValueError(f"{name} is the old name of {new}; leave {name} out")
            warnings.warn(f"{name} is now called {new}; the old name works until version 0.3.", FutureWarning, 2)
        return {cls.renamed.get(name, name): value for name, value in given.items()}

    @model_validator(mode="before")
    @classmethod
    def _none_takes_away(cls, given: Any) -> Any:
        """TOML has no word for nothing: "none" is it, for what may be None."""
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if name in optional and value == "none" else value for name, value in given.items()}
