"""The base class of the settings of every stage."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class RenamedKey(FutureWarning):
    """A key of a configuration was renamed. The old name still works."""


class StageSettings(BaseModel):
    """Settings of a stage. Frozen; an unknown key is an error. Validated once, when a configuration is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    short_forms: ClassVar[tuple[str, ...]] = ()
    """Keys that stand for others, and are gone after validation. They are among those that a mistake is told with."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old name of a key -> its present name. The old name is accepted with a `RenamedKey` warning."""

    @model_validator(mode="before")
    @classmethod
    def _by_their_names(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        for old, name in cls.renamed.items():
            if old in raw and name not in raw:
                warnings.warn(f"the key {old} is called {name} now", RenamedKey, stacklevel=2)
                raw = {name if key == old else key: value for key, value in raw.items()}
        return raw

    @model_validator(mode="before")
    @classmethod
    def _off_as_written(cls, raw: Any) -> Any:
        """Replace False by "off" for keys that may be "off": YAML reads the word off as false."""
        if not isinstance(raw, dict):
            return raw
        may_be_off = {name for name, field in cls.model_fields.items() if "off" in get_args(field.annotation)}
        return {key: "off" if value is False and key in may_be_off else value for key, value in raw.items()}
