"""The configuration of a run: one frozen model for YAML files, flags and `--set`, validated once where it enters."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from warpfuse.engine.bundle_parts import LORA_SCALE_LIMIT
from warpfuse.engine.precision import AskedPrecision
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.beats import FASTEST_BPM, SLOWEST_BPM, ScheduleSettings
from warpfuse.graph.plan.midi_map import MidiMap
from warpfuse.graph.plan.pacer import PaceSettings
from warpfuse.graph.plan.raw_keys import cue_keys, recalled
from warpfuse.graph.plan.validation import validated
from warpfuse.graph.plan.values import Colour, Degrees, Device, Rate, SizeAsked
from warpfuse.graph.plan.workers import TCP_OR_NONE, Workers
from warpfuse.stages import added_stages
from warpfuse.stages.controls.settings import Controls
from warpfuse.stages.diffusion.settings import EncodeSettings, FuseSettings, PredictOptions
from warpfuse.stages.diffusion.style_images import StyleImages
from warpfuse.stages.geometry.framing import Fit
from warpfuse.stages.masking.settings import Mask, MaskSettings
from warpfuse.stages.motion.settings import AnchorSettings, FlowSettings, WarpSettings
from warpfuse.stages.settings import StageSettings
from warpfuse.stages.sinks.camera_address import with_on_fault
from warpfuse.stages.sources.numbered import with_rate

MOST_STEPS, MOST_STREAMED = 20, 4
_NOT_IN_A_LOOK = {"look", "looks", "streams", "hooks", "schedule", "bpm", "midi"}
LoraScale = Annotated[float, Field(ge=-LORA_SCALE_LIMIT, le=LORA_SCALE_LIMIT)]
LookName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")]

DIS = "dis"  # the flow that needs no bundle
FLOW_BUNDLES = {"embedded": "embedded-flow"}  # what the flow bundles of the package are called behind --flow


class Stages(StageSettings):
    """The settings of each stage that has any, by the stage's name.

    added  those of stages that other packages add, where the run has them; given by their names, beside the others
    """

    encode: EncodeSettings = EncodeSettings()
    flow: FlowSettings = FlowSettings()
    anchor: AnchorSettings = AnchorSettings()
    warp: WarpSettings = WarpSettings()
    predict: PredictOptions = PredictOptions()
    fuse: FuseSettings = FuseSettings()
    added: dict[str, SerializeAsAny[StageSettings]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _stages_of_others(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or (raw.keys() <= cls.model_fields.keys() and not raw.get("added")):
            return raw
        known, before = added_stages(), _copied(raw.get("added"), "stages.added")
        if missing := sorted(before.keys() - known.keys()):
            raise ValueError(f"no installed package has the stage {', '.join(missing)}. Install it, or leave it out")
        given = {name: keys for name, keys in raw.items() if name in known}
        merged = {**before, **{name: {**_plain(before.get(name)), **_copied(given[name], name)} for name in given}}
        added = {name: known[name].Settings.model_validate(_plain(keys)) for name, keys in merged.items()}
        return {**{name: keys for name, keys in raw.items() if name not in known}, "added": added}


class GraphConfig(StageSettings):
    """Everything a run is told.

    source    path, or `pattern:...`
    sinks     paths or `null:`; every one gets every frame
    bundle    name or folder of a bundle
    prompt    style, or "a:2, b" for a blend; empty: the bundle's default
    negative  what guidance pulls away from, told as a prompt; empty: no style, or nothing in particular
    loras     scale of live LoRAs of the bundle, by name; one that is left out: its default
    images    pictures as prompts, of those that the bundle takes, by name: a file, and how strongly it counts; a
              file alone is a short form, a number a scale. Those that are left out: not at all
    controls  what steers the UNet beside the prompt, of those that the bundle has, by name: which map of the frame, how
              strongly, at which levels; a number is a scale. Those that are left out: not at all
    steps     UNet runs a frame; as a stream batch 4 at most
    strength  0..1: from the source picture to the full style
    size      (width, height) the networks run at; none: the shape of the output or the source, at the bundle's own size
    mirror    left and right of the source change places; live
    rotate    degrees clockwise that the source is turned by: 0, 90, 180 or 270
    fit       how a source of another shape than the frame goes into it: fill (cropped), letterbox (the whole picture
              and black bars, which no style is shown in) or stretch
    output    (width, height) of what is shown, which the networks' picture is scaled to; none: as the networks have it
    seed      of the noise
    frames    stop after so many; none: all
    flow      "dis": OpenCV's, on the host; "embedded": a network, on the device; or name or folder of a flow bundle
    backend   "auto", or a backend by name: that one or an error
    precision  of the UNet: "auto", "float" as exported, or "int8", which auto takes where the processor gains by it
    device    "cpu"
    decoder   where a video file is decoded: host, or card: that of `device`, whose pictures stay there
    workers   where stages run: auto (one process for a file; capture, main and each sink apart for a live source), one,
              stages (each in a process of its own), or a mapping of names to stages (`graph/plan/placement.py`)
    listen    "tcp://ADDRESS:PORT": where workers on other hosts reach this one; its links take the ports that follow
    keys      folder of the keys that links between hosts are encrypted with
    fps       rate of the sinks, constant: pictures are repeated or skipped; none: as they come. Of pictures in a
              row, which have no rate of their own, the source's as well
    background  colour that shows where the source is transparent, and with `mask.rest: background` where the mask is 0
    sound_delay  of a live source whose sound is recorded or published: seconds by which the sound comes later than the
              source says, -1 to 10; live
    realtime  read the source at its own rate and drop what nobody has time for, as from a camera
    loop      begin a source that ends again, without end; it is read in real time
    in_flight  frames on their way at once: fewer are less delay, more keep more stages busy; none: of a live source 2,
              and K - 1 more as a stream batch
    name      what `warpfuse ctl` calls the run; none: after its source
    stage_deadline_s  a call of a stage that lasts longer is a hang, and its worker is restarted
    threads   cores the networks and the flow may use; none: all
    pace      which frames the networks are spared
    mask      which parts of the picture are styled; `person`, a bundle by its name, and `file:PATH` are short forms
    stages    settings of single stages; `fusion` at the top is short for `stages.fuse.weight`
    looks     keys that are set together, by name
    hooks     Python file whose functions are called on frames and changes of settings (docs/hooks.md). It is code that
              runs with the user's rights: the page cannot name it
    bpm       tempo: beats a minute, by the times of the frames
    schedule  cues, looks or keys, one after another in time with the frames
    midi      what knobs, keys and pads of a MIDI controller do: "cc 7": strength, "note 36": {look: storm}

    `look: NAME` stands for the keys of that look; those beside it lie on top.
    `on_fault`, hold or passthrough, is short for `on-fault=` in every virtual camera among the sinks.
    """

    short_forms: ClassVar[tuple[str, ...]] = ("fusion", "look", "on_fault")

    source: str = ""
    sinks: tuple[str, ...] = ()
    bundle: str = "embedded"
    prompt: str = ""
    negative: str = ""
    loras: dict[str, LoraScale] = Field(default_factory=dict)
    controls: Controls = Field(default_factory=dict)
    images: StyleImages = Field(default_factory=dict)
    steps: int = Field(1, ge=1, le=MOST_STEPS)
    strength: float = Field(1.0, ge=0, le=1)
    size: SizeAsked = None
    mirror: bool = False
    rotate: Degrees = 0
    fit: Fit = "fill"
    output: SizeAsked = None
    seed: int = Field(0, ge=0, lt=2**63)
    frames: int | None = Field(None, ge=1)
    flow: str = Field("dis", min_length=1)
    backend: str = "auto"
    precision: AskedPrecision = "auto"
    device: Device = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    decoder: Literal["host", "card"] = "host"
    workers: Workers = "auto"
    listen: str = Field("", pattern=TCP_OR_NONE)
    keys: str = ""
    fps: Rate = None
    background: Colour = (0, 0, 0)
    sound_delay: float = Field(0.0, ge=-1, le=10)
    realtime: bool = False
    loop: bool = False
    in_flight: int | None = Field(None, ge=1, le=64)
    name: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,31})?$")
    stage_deadline_s: float = Field(30.0, gt=0, le=3600)
    threads: int | None = Field(None, ge=1, le=256)
    pace: PaceSettings = PaceSettings()
    mask: Mask = MaskSettings()
    stages: Stages = Stages()
    looks: dict[LookName, dict[str, Any]] = Field(default_factory=dict)
    hooks: str = ""
    bpm: float = Field(120.0, ge=SLOWEST_BPM, le=FASTEST_BPM)
    schedule: ScheduleSettings = ScheduleSettings()
    midi: MidiMap = Field(default_factory=dict)

    @field_validator("looks")
    @classmethod
    def _usable(cls, looks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, keys in looks.items():
            if nested := keys.keys() & _NOT_IN_A_LOOK:
                raise ValueError(f"{name}: a look holds no {min(nested)}")
            try:
                validate(keys)
            except ConfigError as error:
                raise ValueError(f"{name}: {error}") from None
        return looks

    @model_validator(mode="after")
    def _cues_are_known(self) -> "GraphConfig":
        for number, cue in enumerate(self.schedule.cues):
            try:
                keys = cue_keys(cue, self.looks, {})
                if nested := keys.keys() & _NOT_IN_A_LOOK:
                    raise ConfigError(f"a cue holds no {min(nested)}")
                validate(keys)
            except ConfigError as error:
                raise ValueError(f"schedule.cues.{number}: {error}") from None
        return self

    @property
    def paced(self) -> bool:
        """A source that would wait is read to the clock, as one that does not."""
        return self.realtime or self.loop

    @property
    def loops_on_host(self) -> bool:
        """Stages run compiled loops on the host: all of them on a CPU, beside a card those around DIS."""
        return self.device == "cpu" or self.flow == DIS

    @model_validator(mode="after")
    def _fit_together(self) -> "GraphConfig":
        if self.pace.active and self.stages.predict.stream:
            raise ValueError(
                "stages.predict.stream keeps every frame's rows moving, pace spares frames: use one of them"
                " (pace.skip=1, pace.still=0 and no pace.deadline_ms switch pace off)"
            )
        if self.stages.predict.stream and self.steps > MOST_STREAMED:
            raise ValueError(
                f"steps: a stream batch has 1 to {MOST_STREAMED}, got {self.steps}; stages.predict.stream=false takes"
                f" up to {MOST_STEPS}"
            )
        fuse = self.stages.fuse
        if self.stages.predict.stream and any((one.kind, one.of) == ("reference", "anchor") for one in fuse.windows):
            raise ValueError(
                "stages.fuse.between: a stream batch has no picture of the anchor until it has left; expected kind"
                " latent or picture with of: anchor, or stages.predict.stream=false"
            )
        if self.stages.anchor.picture and fuse.reference == "latent":
            raise ValueError(
                "stages.anchor.picture: with stages.fuse.reference latent no picture is fed back, so a keyframe would"
                " not last; expected picture or output"
            )
        if self.stages.encode.twice and fuse.reference == "latent" and "picture" not in fuse.pulls:
            raise ValueError(
                "stages.encode.twice: with stages.fuse.reference latent no picture is encoded; leave it out"
            )
        if self.decoder == "card" and self.device == "cpu":
            raise ValueError("decoder: card decodes on the run's device, got cpu: give --device cuda, or decoder host")
        guidance = self.stages.predict.as_guidance()
        if self.negative and not guidance.has_negative:
            raise ValueError(
                f"negative: guidance {guidance.mode!r} with scale {guidance.scale:g} never asks for a negative prompt:"
                " use stages.predict.guidance full or initialize and a guidance_scale above 1, as in"
                " --set stages.predict.guidance=full --set stages.predict.guidance_scale=5"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        raw = recalled(raw, raw.get("looks"), {})
        if "fusion" in raw:
            fusion = _share(raw.pop("fusion"))
            stages = raw["stages"] = _copied(raw.get("stages"), "stages")
            fuse = stages["fuse"] = _copied(stages.get("fuse"), "stages.fuse")
            if fuse.setdefault("weight", fusion) != fusion:
                raise ValueError(f"fusion is {fusion} and stages.fuse.weight {fuse['weight']}; give one of them")
        if isinstance(raw.get("sinks"), str):
            raw["sinks"] = (raw["sinks"],)
        if "on_fault" in raw:
            raw["sinks"] = with_on_fault(raw.get("sinks"), raw.pop("on_fault"))
        if isinstance(raw.get("source"), str):
            raw["source"] = with_rate(raw["source"], raw.get("fps"))
        return raw


def validate(raw: dict[str, Any], where: str = "") -> GraphConfig:
    """Raw keys to a configuration. Raises ConfigError: as `validated`."""
    return validated(GraphConfig, raw, where)


def _share(value: Any) -> float:
    """A number 0..1, said under the name the user gave it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"fusion: expected a number from 0 to 1, got {value!r}")
    return number


def _plain(value: Any) -> dict[str, Any]:
    """Settings as keys."""
    return value.model_dump() if isinstance(value, StageSettings) else dict(value or {})


def _copied(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{where} takes keys, got {value!r}")
    return dict(value or {})
