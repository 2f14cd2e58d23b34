"""What every section of a configuration is."""

from __future__ import annotations

from typing import Annotated, Any, get_args

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

    @model_validator(mode="before")
    @classmethod
    def _none_takes_away(cls, given: Any) -> Any:
        """TOML has no word for nothing: "none" is it, for what may be None."""
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if name in optional and value == "none" else value for name, value in given.items()}
