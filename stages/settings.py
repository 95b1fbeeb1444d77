"""What the settings of every stage have in common."""

from pydantic import BaseModel, ConfigDict


class StageSettings(BaseModel):
    """Frozen; an unknown key is an error. Validated once, where it enters; the stages trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
