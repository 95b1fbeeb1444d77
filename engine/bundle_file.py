"""What `bundle.json` says, as a schema: one model for each kind of bundle. Unknown keys are errors.

What a file may say is checked here; that the files are there, whole and inside the folder, in `bundle.py`.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_MOST_CALLS = 8  # steps of a frame
PixelSize = tuple[Annotated[int, Field(gt=0, le=16384)], Annotated[int, Field(gt=0, le=16384)]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(_Part):
    """The noise levels the UNet was trained on: the betas of a variance-preserving process.

    zero_terminal_snr  the last level has no signal (the betas are rescaled to it)
    shift              of rectified-flow levels; they do not use the betas
    """

    schedule: Literal["scaled_linear", "linear", "cosine"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    train_timesteps: int = Field(gt=0, le=100_000)
    zero_terminal_snr: bool = False
    shift: float = Field(1.0, gt=0)


class LatentSpace(_Part):
    """channels, pixels a latent cell is wide, and the factor from the encoder's output to what the UNet takes."""

    channels: int = Field(gt=0, le=1024)
    downscale: int = Field(gt=0, le=64)
    scale: float = Field(gt=0)


class Sizes(_Part):
    """Frame sizes in pixels the networks take: multiples of `multiple`, at least `minimum` each way."""

    multiple: int = Field(gt=0, le=1024)
    minimum: int = Field(gt=0)
    default_long_side: int = Field(gt=0)


class Style(_Part):
    """A named style: the vector the UNet takes and a line that tells what it looks like."""

    vector: tuple[float, ...]
    about: str = ""


class Steps(_Part):
    """Which of its levels the UNet is asked at.

    top, floor      timesteps where sampling starts at full strength, and next above which it ends: of spacing "even"
    spacing         "even", or how the checkpoint's own sampler spaces its timesteps
    offset          added to each timestep of "leading"
    original_steps  of "lcm": how many timesteps latent consistency was distilled at
    end             where the last step goes: to the clean latent, or to the lowest level of the table
    """

    top: float = Field(gt=0)
    floor: float = Field(ge=0)
    spacing: Literal["even", "leading", "trailing", "linspace", "lcm"] = "even"
    offset: int = Field(0, ge=0, le=1000)
    original_steps: int = Field(50, ge=1, le=100_000)
    end: Literal["clean", "lowest"] = "clean"


class SolverChoice(_Part):
    """The solver the UNet is sampled with, by name, and that solver's own options.

    karras  the levels of Karras et al. 2022, eq. 5, for a solver in sigma space
    """

    name: str = Field("turbo", pattern=r"^[a-z][a-z0-9_]*$", max_length=50)
    options: dict[str, float] = Field(default_factory=dict)
    karras: bool = False


class TextInput(_Part):
    """An input of the text network, tokens [1, length] int64, and the tokenizer it is had by.

    tokenizer        file of the `tokenizers` library, among `files`
    start, end, pad  a prompt is cut to length - 2 tokens, framed by start and end, and filled up with pad
    """

    tokenizer: str
    length: int = Field(ge=2, le=4096)
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    pad: int = Field(ge=0)


class TextPrompt(_Part):
    """How a prompt is told: the inputs of the text network, whose outputs the UNet takes by their names.

    inputs    in their order: "tokens", and "tokens_2" where there are two tokenizers
    zeros_for_none  without a negative prompt the unconditional outputs are zeros, else those of the empty prompt
    time_ids  a row of what the UNet takes by that name, where it does
    """

    inputs: dict[Literal["tokens", "tokens_2"], TextInput] = Field(min_length=1)
    default_prompt: str = ""
    zeros_for_none: bool = False
    time_ids: tuple[float, float, float, float, float, float] | None = None


LORA_SCALE_LIMIT = 4.0
"""How strongly a live LoRA may be taken, either way. Styles are made for about 1."""

LORA_INPUT = "lora_scale"
"""Input of the networks with live LoRAs, float32 [rows, LoRAs]: how strongly a row takes each."""


class LiveLora(_Part):
    """A LoRA whose scale is an input of the networks.

    default  its scale where none is asked for
    text     whether it changes the text encoder
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    default: float = Field(ge=-LORA_SCALE_LIMIT, le=LORA_SCALE_LIMIT)
    text: bool = False


class Described(_Part):
    """What `bundle.json` says of every kind of bundle. Unknown keys are errors."""

    format: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    files: dict[str, Sha256]
    licence: str
    source: str

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
                raise ValueError(f"file name {name!r} leads outside the bundle")
        return files

    def _check_networks(self, networks: Mapping[Any, str], needed: set[str]) -> None:
        missing = needed - set(networks)
        if missing:
            raise ValueError(f"networks lacks {', '.join(sorted(missing))}")
        unlisted = set(networks.values()) - set(self.files)
        if unlisted:
            raise ValueError(f"{', '.join(sorted(unlisted))} has no sha256 under files")


class BundleFile(Described):
    """`bundle.json` of a diffusion model, as it is on disk: one prompted by named styles, or by text.

    size, batch  (width, height) in pixels and rows of the UNet's batch, where the networks take no other
    loras        live ones, in the order of their columns in the input of the networks
    """

    kind: Literal["latent-diffusion"]
    prediction: Literal["epsilon", "v", "sample", "flow"]
    levels: Schedule
    latent: LatentSpace
    takes_source: bool
    strength_scales_style: bool = False
    sizes: Sizes
    size: PixelSize | None = None
    batch: int | None = Field(None, gt=0, le=64)
    steps: Steps = Steps(top=999.0, floor=200.0)
    solver: SolverChoice = SolverChoice()
    default_style: str = ""
    styles: dict[str, Style] = Field(default_factory=dict)
    text: TextPrompt | None = None
    loras: tuple[LiveLora, ...] = Field(default=(), max_length=16)
    networks: dict[Literal["encoder", "unet", "decoder", "text"], str]

    @model_validator(mode="after")
    def _complete(self) -> "BundleFile":
        self._check_networks(self.networks, {"encoder", "unet", "decoder"})
        self._check_steps()
        if bool(self.styles) == (self.text is not None):
            raise ValueError("needed is either styles or text, one of them")
        if ("text" in self.networks) != (self.text is not None):
            raise ValueError("text and networks.text belong together, one of them is missing")
        if self.text is not None:
            self._check_text(self.text)
            self._check_loras()
            return self
        if self.loras:
            raise ValueError("loras are of a bundle with text, this one has styles")
        if self.default_style not in self.styles:
            raise ValueError(f"default_style {self.default_style!r} is not among the styles")
        if len({len(style.vector) for style in self.styles.values()}) != 1:
            raise ValueError("style vectors differ in length")
        return self

    def _check_steps(self) -> None:
        steps, trained = self.steps, self.levels.train_timesteps
        if steps.spacing != "even" and trained < _MOST_CALLS:
            raise ValueError(f"levels.train_timesteps must be {_MOST_CALLS} or more, got {trained}")
        if steps.spacing == "leading" and steps.offset * _MOST_CALLS >= trained:
            raise ValueError(f"steps.offset must be less than train_timesteps / {_MOST_CALLS}, got {steps.offset}")
        if steps.spacing == "lcm" and not _MOST_CALLS <= steps.original_steps <= trained:
            raise ValueError(
                f"steps.original_steps must be from {_MOST_CALLS} to train_timesteps, got {steps.original_steps}"
            )

    def _check_text(self, text: TextPrompt) -> None:
        if self.default_style or self.strength_scales_style:
            raise ValueError("default_style and strength_scales_style are of a bundle with styles, this one has text")
        unlisted = {one.tokenizer for one in text.inputs.values()} - set(self.files)
        if unlisted:
            raise ValueError(f"{', '.join(sorted(unlisted))} has no sha256 under files")

    def _check_loras(self) -> None:
        names = [lora.name for lora in self.loras]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"loras: {', '.join(doubled)} is there twice, expected one of each name")


class FlowBundleFile(Described):
    """`bundle.json` of an optical flow network.

    size        (width, height) of the pictures it takes, pixels, or
    sizes       which sizes it takes, if it takes many
    iterations  of its refinement, unrolled in the network
    """

    kind: Literal["flow"]
    size: PixelSize | None = None
    sizes: Sizes | None = None
    iterations: int = Field(gt=0, le=100)
    networks: dict[Literal["flow"], str]

    @model_validator(mode="after")
    def _complete(self) -> "FlowBundleFile":
        self._check_networks(self.networks, {"flow"})
        if (self.size is None) == (self.sizes is None):
            raise ValueError("size, sizes: expected one of them, for one size or for many")
        return self


class AutoencoderBundleFile(Described):
    """`bundle.json` of an autoencoder alone: the encoder and decoder of diffusion bundles still to be made.

    size                 (width, height) of the pictures, pixels
    channels, downscale  of the latent
    """

    kind: Literal["autoencoder"]
    size: PixelSize
    channels: int = Field(gt=0, le=1024)
    downscale: int = Field(gt=0, le=64)
    networks: dict[Literal["encoder", "decoder"], str]

    @model_validator(mode="after")
    def _complete(self) -> "AutoencoderBundleFile":
        self._check_networks(self.networks, {"encoder", "decoder"})
        return self


AnyBundleFile = Annotated[BundleFile | FlowBundleFile | AutoencoderBundleFile, Field(discriminator="kind")]
ANY: TypeAdapter[BundleFile | FlowBundleFile | AutoencoderBundleFile] = TypeAdapter(AnyBundleFile)
