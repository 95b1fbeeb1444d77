"""The parts of what `bundle.json` says of a diffusion model: levels, sizes, styles, text, LoRAs, controls, images."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PixelSize = tuple[Annotated[int, Field(gt=0, le=16384)], Annotated[int, Field(gt=0, le=16384)]]


class Part(BaseModel):
    """A part of a description: frozen, finite, without keys that are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(Part):
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


class LatentSpace(Part):
    """channels, pixels a latent cell is wide, and the factor from the encoder's output to what the UNet takes."""

    channels: int = Field(gt=0, le=1024)
    downscale: int = Field(gt=0, le=64)
    scale: float = Field(gt=0)


class Sizes(Part):
    """Frame sizes in pixels the networks take: multiples of `multiple`, at least `minimum` each way."""

    multiple: int = Field(gt=0, le=1024)
    minimum: int = Field(gt=0)
    default_long_side: int = Field(gt=0)


Share = Annotated[float, Field(ge=0, le=1)]
Colour = tuple[Share, Share, Share]
"""Red, green, blue in [0, 1], as shown."""


class Style(Part):
    """A named style: the vector the UNet takes and a line that tells what it looks like.

    ink    colour of its lines, where the bundle draws lines (network "lines")
    lines  how much of them is laid over the paint; 0: none, and the network is not asked
    lut    file with the colours that its paint is printed in, 33 x 33 x 33 x 3 bytes: red, green, blue of the paint,
           then the three of the print. None: the paint as it is
    thumb  file with a small picture in this style, a JPEG that the page shows. None: the page shows words alone
    """

    vector: tuple[float, ...]
    about: str = ""
    ink: Colour = (0.0, 0.0, 0.0)
    lines: Share = 1.0
    lut: str | None = None
    thumb: str | None = None


class Steps(Part):
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


class SolverChoice(Part):
    """The solver the UNet is sampled with, by name, and that solver's own options.

    karras  the levels of Karras et al. 2022, eq. 5, for a solver in sigma space
    """

    name: str = Field("turbo", pattern=r"^[a-z][a-z0-9_]*$", max_length=50)
    options: dict[str, float] = Field(default_factory=dict)
    karras: bool = False


MOST_CHUNKS = 8
"""How many chunks of tokens a prompt may have at most."""


class TextInput(Part):
    """An input of the text network, tokens [1, length] int64, and the tokenizer it is had by.

    tokenizer        file of the `tokenizers` library, among `files`
    start, end, pad  a chunk of a prompt is length - 2 tokens, framed by start and end, and filled up with pad
    width            numbers of a token in the output `context` that are of this input; none: all of them
    embeddings       of textual inversion: name -> the tokens a prompt that names it has there, one for each vector
    """

    tokenizer: str
    length: int = Field(ge=2, le=4096)
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    pad: int = Field(ge=0)
    width: int | None = Field(None, gt=0)
    embeddings: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = Field(default_factory=dict)


class TextPrompt(Part):
    """How a prompt is told: the inputs of the text network, whose outputs the UNet takes by their names.

    inputs    in their order: "tokens", and "tokens_2" where there are two tokenizers
    chunks    of tokens in a row of `context`, as the UNet takes it: the text network is called for each
    zeros_for_none  without a negative prompt the unconditional outputs are zeros, else those of the empty prompt
    time_ids  a row of what the UNet takes by that name, where it does
    """

    inputs: dict[Literal["tokens", "tokens_2"], TextInput] = Field(min_length=1)
    chunks: int = Field(1, ge=1, le=MOST_CHUNKS)
    default_prompt: str = ""
    zeros_for_none: bool = False
    time_ids: tuple[float, float, float, float, float, float] | None = None


LORA_SCALE_LIMIT = 4.0
"""How strongly a live LoRA may be taken, either way. Styles are made for about 1."""

LORA_INPUT = "lora_scale"
"""Input of the networks with live LoRAs, float32 [rows, LoRAs]: how strongly a row takes each."""


class LiveLora(Part):
    """A LoRA whose scale is an input of the networks.

    default  its scale where none is asked for
    text     whether it changes the text encoder
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    default: float = Field(ge=-LORA_SCALE_LIMIT, le=LORA_SCALE_LIMIT)
    text: bool = False


CONTROL_SCALE_LIMIT = 2.0
"""How strongly a control may be taken. They are made for about 1."""

MOST_CONTROLS = 8
"""How many controls a bundle may have at most."""

HINT, CONTROL_SCALE = "hint", "control_scale"
FEATURES, ADAPTER_SCALE = "features", "adapter_scale"


class Control(Part):
    """A ControlNet or a T2I-Adapter that the UNet was exported with. A control map, [1, 3, H, W] in [0, 1], steers it.

    The network "control_N" of the bundle, N its place in the list from 0, takes the map, as `rgb`, once a frame. The
    UNet takes what it gives with every call, with a scale for each row; at scale 0 it is the UNet without.

    form "controlnet"  gives `hint` [1, C, h, w]. The UNet takes `hint` [rows, n, C, h, w] and `control_scale` [rows, n]
                       of the n ControlNets, in the order of the list
    form "adapter"     gives `features` [1, F]. The UNet takes `features` [rows, m, F] and `adapter_scale` [rows, m] of
                       the m adapters likewise
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    form: Literal["controlnet", "adapter"]


IMAGE_SCALE_LIMIT = 2.0
"""How strongly a style image may be taken. At 1 it outweighs most prompts."""

MOST_IMAGES = 4
"""How many style images a bundle may take at most."""

IMAGE_TOKENS, IMAGE_SCALE = "image_tokens", "image_scale"
IMAGE_LAYERS = ("style", "layout", "rest")
"""Groups of layers that take an image each at a scale of its own, after InstantStyle (Wang et al. 2024)."""


class StyleImage(Part):
    """An IP-Adapter that the UNet was exported with: a picture is a prompt beside the text.

    The network "image_N" of the bundle, N as `network` says, takes a picture when it changes, `rgb`
    [1, 3, size, size] in [0, 1]. It gives `tokens_P` [1, tokens, width] of the picture and `none_P`, the same of no
    picture, P the place of this image in the list. Images of one encoder share a network.

    The UNet takes `image_tokens` [rows, T, width], the tokens of all images in the order of the list, and `image_scale`
    [rows, 3 n], for each of the n images its scale in the layers of style, of layout, and the rest. At scale 0 it is
    the UNet without.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    network: int = Field(ge=0, lt=MOST_IMAGES)
    size: int = Field(gt=0, le=4096)
    tokens: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=65536)


class AttentionLayer(Part):
    """What a layer keeps of a frame for those after it: rows x columns tokens of `width` numbers, row by row."""

    name: str = Field(max_length=200)
    rows: int = Field(gt=0, le=4096)
    columns: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=65536)

    @property
    def numbers(self) -> int:
        """All of its tokens."""
        return self.rows * self.columns * self.width


class AttentionMemory(Part):
    """Cross-frame attention: the UNet takes tokens of earlier frames and gives those of its own.

    past         [rows, references, F]        what was given as `kept` for other frames, at the same level
    past_weight  [rows, references, h, w]     0..1: how much each cell of it counts; 0: not at all
    own_weight   [rows, 1]                    0..1: how much a row's own tokens count
    kept         [rows, F]                    what the row leaves: the tokens of the layers, one after the other
    """

    references: int = Field(ge=1, le=2)
    layers: tuple[AttentionLayer, ...] = Field(min_length=1, max_length=256)

    @property
    def numbers(self) -> int:
        """F."""
        return sum(layer.numbers for layer in self.layers)
