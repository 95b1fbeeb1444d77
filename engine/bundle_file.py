"""The schema of `bundle.json`, with one model for each kind of bundle. Unknown keys are errors.

The contents of `bundle.json` are checked here; the files that it names, in `bundle.py`.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, field_validator, model_validator

from warpfuse.engine.bundle_parts import (
    MOST_CONTROLS,
    MOST_IMAGES,
    AttentionMemory,
    Control,
    LatentSpace,
    LiveLora,
    Part,
    PixelSize,
    Schedule,
    Sizes,
    SolverChoice,
    Steps,
    Style,
    StyleImage,
    TextPrompt,
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_MOST_CALLS = 8  # steps of a frame

ControlNetwork = Literal[
    "control_0", "control_1", "control_2", "control_3", "control_4", "control_5", "control_6", "control_7"
]
ImageNetwork = Literal["image_0", "image_1", "image_2", "image_3"]
OwnNetwork = Literal["encoder", "encoder_past", "unet", "unet_shallow", "decoder", "text", "lines"]
NetworkName = OwnNetwork | ControlNetwork | ImageNetwork


def image_network(number: int) -> ImageNetwork:
    """The name of the network that `StyleImage.network` says."""
    names: tuple[ImageNetwork, ...] = get_args(ImageNetwork)
    return names[number]


class Described(Part):
    """The keys of `bundle.json` that every kind of bundle has."""

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
        self._check_listed(networks.values())

    def _check_listed(self, names: Iterable[str]) -> None:
        unlisted = set(names) - set(self.files)
        if unlisted:
            raise ValueError(f"{', '.join(sorted(unlisted))} has no sha256 under files")


class BundleFile(Described):
    """`bundle.json` of a diffusion model, whose prompts are either named styles or text.

    size, batch  (width, height) in pixels and rows of the UNet's batch, if the networks take no other
    loras        live LoRAs, in the order of their columns in the networks' input
    attention    tokens of earlier frames that the UNet takes, if it does
    controls     ControlNets and T2I-Adapters that it takes
    images       pictures that it takes as prompts, by IP-Adapters
    networks     "encoder_past": a cheaper encoder, for the picture that is fed back. "text": in a bundle with text.
                 "unet_shallow", only in a bundle with text: the shallow part of the UNet, which takes the output `deep`
                 of the UNet in place of its deep part.
                 "lines", only in a bundle with styles: gives the opacity of the lines drawn over the decoder's picture;
                 rgb of the source, latent, style -> cover [n, 1, h, w] in [0, 1]. "control_N": belongs to control N,
                 counted from 0. "image_N": belongs to the images whose `network` is N
    int8         networks that are also there in 8-bit integers (`engine/precision.py`)
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
    attention: AttentionMemory | None = None
    controls: tuple[Control, ...] = Field(default=(), max_length=MOST_CONTROLS)
    images: tuple[StyleImage, ...] = Field(default=(), max_length=MOST_IMAGES)
    networks: dict[NetworkName, str]
    int8: dict[Literal["unet"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> "BundleFile":
        self._check_networks(self.networks, {"encoder", "unet", "decoder"})
        self._check_listed(self.int8.values())
        self._check_steps()
        if bool(self.styles) == (self.text is not None):
            raise ValueError("needed is either styles or text, one of them")
        if ("text" in self.networks) != (self.text is not None):
            raise ValueError("text and networks.text belong together, one of them is missing")
        if "lines" in self.networks and not self.styles:
            raise ValueError("networks.lines is of a bundle with styles, this one has text")
        if self.splits and (self.text is None or self.attention is not None or self.controls):
            raise ValueError("networks.unet_shallow is of a bundle with text, without attention and controls")
        if self.text is not None:
            self._check_text(self.text)
            self._check_names("loras", [lora.name for lora in self.loras])
            self._check_controls()
            self._check_images()
            return self
        if self.loras:
            raise ValueError("loras are of a bundle with text, this one has styles")
        if self.attention is not None:
            raise ValueError("attention is of a bundle with text, this one has styles")
        if self.controls:
            raise ValueError("controls are of a bundle with text, this one has styles")
        if self.images:
            raise ValueError("images are of a bundle with text, this one has styles")
        if self.default_style not in self.styles:
            raise ValueError(f"default_style {self.default_style!r} is not among the styles")
        kept = [name for style in self.styles.values() for name in (style.lut, style.thumb) if name is not None]
        self._check_listed(kept)
        if "lines" not in self.networks and any(style.lut is not None for style in self.styles.values()):
            raise ValueError("styles with a lut need networks.lines, which is missing")
        if len({len(style.vector) for style in self.styles.values()}) != 1:
            raise ValueError("style vectors differ in length")
        return self

    @property
    def splits(self) -> bool:
        """Whether the deep part of the UNet need not run for every frame."""
        return "unet_shallow" in self.networks

    @property
    def remembers(self) -> bool:
        """Whether the UNet can take something of earlier frames along the flow: tokens, or its deep feature."""
        return self.attention is not None or self.splits

    @property
    def printed(self) -> bool:
        """Whether the decoder's picture still needs its lines drawn and its colours mapped (`Style`)."""
        return "lines" in self.networks

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
        self._check_listed(one.tokenizer for one in text.inputs.values())

    def _check_names(self, key: str, names: list[str]) -> None:
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"{key}: {', '.join(doubled)} is there twice, expected one of each name")

    def _check_controls(self) -> None:
        self._check_names("controls", [control.name for control in self.controls])
        self._check_numbered("controls", "control_", len(self.controls))

    def _check_images(self) -> None:
        self._check_names("images", [image.name for image in self.images])
        used = {image.network for image in self.images}
        if used != set(range(len(used))):
            raise ValueError(f"images: their networks are {sorted(used)}, expected 0 and up, without a gap")
        if any(a.network == b.network and a.size != b.size for a in self.images for b in self.images):
            raise ValueError("images: two of one network differ in size, expected the same")
        if len({image.width for image in self.images}) > 1:
            raise ValueError("images: their tokens differ in width, expected the same for all")
        self._check_numbered("images", "image_", len(used))

    def _check_numbered(self, key: str, prefix: str, count: int) -> None:
        """The networks that are named by numbers from 0."""
        wanted = [f"{prefix}{place}" for place in range(count)]
        found = sorted(name for name in self.networks if name.startswith(prefix))
        if found != wanted:
            raise ValueError(
                f"{key}: {len(wanted)} networks are listed, networks has {', '.join(found) or 'none of them'}; "
                f"expected {', '.join(wanted) or 'none'}"
            )


class FlowBundleFile(Described):
    """`bundle.json` of an optical flow network.

    size        (width, height) in pixels of the pictures it takes, if it takes one size
    sizes       the sizes it takes, if it takes several
    iterations  number of refinement steps, which are unrolled in the network
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
    """`bundle.json` of an autoencoder alone, which gives its encoder and decoder to diffusion bundles made later.

    size                 (width, height) of the pictures in pixels
    channels, downscale  channels of the latent, and pixels across one of its cells
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


class MapBundleFile(Described):
    """`bundle.json` of a network from a picture to a map of it: rgb [1, 3, H, W] -> map [1, channels, H, W].

    Both are in [0, 1]. A mask is a map with one channel.

    size      (width, height) in pixels of the pictures it takes, if it takes one size
    sizes     the sizes it takes, if it takes several; it runs at `default_long_side` or below
    channels  channels of the map
    """

    kind: Literal["map"]
    size: PixelSize | None = None
    sizes: Sizes | None = None
    channels: Literal[1, 3]
    networks: dict[Literal["map"], str]

    @model_validator(mode="after")
    def _complete(self) -> "MapBundleFile":
        self._check_networks(self.networks, {"map"})
        if (self.size is None) == (self.sizes is None):
            raise ValueError("size, sizes: expected one of them, for one size or for many")
        return self


DescribedKind = BundleFile | FlowBundleFile | AutoencoderBundleFile | MapBundleFile
AnyBundleFile = Annotated[DescribedKind, Field(discriminator="kind")]
ANY: TypeAdapter[DescribedKind] = TypeAdapter(AnyBundleFile)
