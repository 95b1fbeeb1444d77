"""Parts of the schema of `bundle.json`: levels, latents, sizes, styles, text, LoRAs, controls and attention."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PixelSize = tuple[Annotated[int, Field(gt=0, le=16384)], Annotated[int, Field(gt=0, le=16384)]]


class Part(BaseModel):
    """A part of the schema. Values are frozen and finite; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(Part):
    """The noise levels the UNet was trained on: the betas of a variance-preserving process.

    zero_terminal_snr  the betas are rescaled so that the last level has no signal
    shift              shift of rectified-flow levels, which do not use the betas
    """

    schedule: Literal["scaled_linear", "linear", "cosine"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    train_timesteps: int = Field(gt=0, le=100_000)
    zero_terminal_snr: bool = False
    shift: float = Field(1.0, gt=0)


class LatentSpace(Part):
    """The latent: its channels, pixels across one of its cells, and the factor from encoder output to UNet input."""

    channels: int = Field(gt=0, le=1024)
    downscale: int = Field(gt=0, le=64)
    scale: float = Field(gt=0)


class Sizes(Part):
    """The frame sizes that the networks take, in pixels: multiples of `multiple`, each side at least `minimum`."""

    multiple: int = Field(gt=0, le=1024)
    minimum: int = Field(gt=0)
    default_long_side: int = Field(gt=0)


Share = Annotated[float, Field(ge=0, le=1)]
Colour = tuple[Share, Share, Share]
"""Red, green, blue in [0, 1], as displayed."""


class Style(Part):
    """A named style: the vector the UNet takes and a line that describes its look.

    ink    colour of its lines, if the bundle draws lines (network "lines")
    lines  opacity of the lines over the decoder's picture; 0: none, and the network does not run
    lut    file that maps the decoder's colours to the shown ones: 33 x 33 x 33 x 3 bytes, indexed by red, green, blue
           of the decoder, with the three bytes of the shown colour. None: the decoder's colours
    thumb  file with a small JPEG picture in this style, for the web page. None: the page shows only its name
    """

    vector: tuple[float, ...]
    about: str = ""
    ink: Colour = (0.0, 0.0, 0.0)
    lines: Share = 1.0
    lut: str | None = None
    thumb: str | None = None


class Steps(Part):
    """The levels at which the UNet is called.

    top, floor      for spacing "even": sampling at full strength starts at timestep `top` and ends next above `floor`
    spacing         "even", or the spacing of timesteps by the checkpoint's own sampler
    offset          for "leading": added to each timestep
    original_steps  for "lcm": the number of timesteps that latent consistency was distilled at
    end             the end of the last step: the clean latent, or the lowest level of the table
    """

    top: float = Field(gt=0)
    floor: float = Field(ge=0)
    spacing: Literal["even", "leading", "trailing", "linspace", "lcm"] = "even"
    offset: int = Field(0, ge=0, le=1000)
    original_steps: int = Field(50, ge=1, le=100_000)
    end: Literal["clean", "lowest"] = "clean"


class SolverChoice(Part):
    """The name of the solver for sampling the UNet, and the solver's options.

    karras  use the levels of Karras et al. 2022, eq. 5; only for a solver in sigma space
    """

    name: str = Field("turbo", pattern=r"^[a-z][a-z0-9_]*$", max_length=50)
    options: dict[str, float] = Field(default_factory=dict)
    karras: bool = False


MOST_CHUNKS = 8
"""Most chunks of tokens in a prompt."""


class TextInput(Part):
    """An input of the text network, tokens [1, length] int64, and its tokenizer.

    tokenizer        file of the `tokenizers` library, among `files`
    start, end, pad  a chunk is `start`, up to length - 2 tokens of the prompt, `end`, then `pad` up to the length
    width            size of this input's part of each token in the output `context`; None: the whole token
    embeddings       textual inversion: name -> the tokens that replace the name in a prompt, one for each vector
    """

    tokenizer: str
    length: int = Field(ge=2, le=4096)
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    pad: int = Field(ge=0)
    width: int | None = Field(None, gt=0)
    embeddings: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = Field(default_factory=dict)


class TextPrompt(Part):
    """Text prompts: the inputs of the text network, whose outputs are inputs of the UNet with the same names.

    inputs    in order: "tokens", and "tokens_2" if there are two tokenizers
    chunks    chunks of tokens in a row of the UNet's `context`; the text network is called for each
    zeros_for_none  without a negative prompt the unconditional outputs are zeros instead of those of the empty prompt
    time_ids  a row of the UNet's input of that name, if it has one
    """

    inputs: dict[Literal["tokens", "tokens_2"], TextInput] = Field(min_length=1)
    chunks: int = Field(1, ge=1, le=MOST_CHUNKS)
    default_prompt: str = ""
    zeros_for_none: bool = False
    time_ids: tuple[float, float, float, float, float, float] | None = None


LORA_SCALE_LIMIT = 4.0
"""Largest absolute scale of a live LoRA. LoRAs are usually made for a scale of 1."""

LORA_INPUT = "lora_scale"
"""Input of the networks with live LoRAs, float32 [rows, LoRAs]: the scale of each LoRA in each row."""


class LiveLora(Part):
    """A LoRA whose scale is an input of the networks.

    default  its scale if the user gives none
    text     whether it changes the text encoder
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    default: float = Field(ge=-LORA_SCALE_LIMIT, le=LORA_SCALE_LIMIT)
    text: bool = False


CONTROL_SCALE_LIMIT = 2.0
"""Largest scale of a control. Controls are usually made for a scale of 1."""

MOST_CONTROLS = 8
"""Most controls in a bundle."""

HINT, CONTROL_SCALE = "hint", "control_scale"
FEATURES, ADAPTER_SCALE = "features", "adapter_scale"


class Control(Part):
    """A ControlNet or a T2I-Adapter that the UNet was exported with. Its control map is [1, 3, H, W] in [0, 1].

    The bundle's network "control_N", for control N of the list counted from 0, gets the map as `rgb` once a frame. The
    UNet gets that network's output at every call, with a scale for each row. At scale 0 the control has no effect.

    form "controlnet"  gives `hint` [1, C, h, w]. The UNet takes `hint` [rows, n, C, h, w] and `control_scale` [rows, n]
                       of the n ControlNets, in the order of the list
    form "adapter"     gives `features` [1, F]. The UNet takes `features` [rows, m, F] and `adapter_scale` [rows, m] of
                       the m adapters, in the order of the list
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
    """The tokens that a layer keeps of a frame for later frames: rows x columns tokens of `width` numbers."""

    name: str = Field(max_length=200)
    rows: int = Field(gt=0, le=4096)
    columns: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=65536)

    @property
    def numbers(self) -> int:
        """Numbers in all its tokens."""
        return self.rows * self.columns * self.width


class AttentionMemory(Part):
    """Cross-frame attention: the UNet takes tokens of earlier frames as input and outputs the tokens of its own frame.

    past         [rows, references, F]        the `kept` of other frames, at the same level
    past_weight  [rows, references, h, w]     0..1: weight of each cell of `past`
    own_weight   [rows, 1]                    0..1: weight of the row's own tokens
    kept         [rows, F]                    output: the tokens of all layers, one layer after the other
    """

    references: int = Field(ge=1, le=2)
    layers: tuple[AttentionLayer, ...] = Field(min_length=1, max_length=256)

    @property
    def numbers(self) -> int:
        """F, the numbers in the tokens of all layers."""
        return sum(layer.numbers for layer in self.layers)
