"""What the settings of every stage have in common."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class StageSettings(BaseModel):
    """Frozen; an unknown key is an error. Validated once, where it enters; the stages trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _off_as_written(cls, raw: Any) -> Any:
        """YAML reads off as false; a key that can be "off" is meant by it."""
        if not isinstance(raw, dict):
            return raw
        wordy = {name for name, field in cls.model_fields.items() if "off" in get_args(field.annotation)}
        return {key: "off" if value is False and key in wordy else value for key, value in raw.items()}
