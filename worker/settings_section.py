"""What every section of the settings tree is made of."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


def _names(value: Any) -> Any:
    """A list as a variable of the environment gives it: ``a, b``, or JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("not a JSON list; write `a, b`") from None
    return [name for each in value.split(",") if (name := each.strip())]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
"""Names; one string holds them with commas between, as variables of the environment do."""


class Section(BaseModel):
    """A section refuses fields it does not know: a typo must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
