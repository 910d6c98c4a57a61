"""What every section of the settings tree is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A section refuses fields it does not know: a typo must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
