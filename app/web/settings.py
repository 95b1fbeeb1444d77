"""The settings of the page: changing, checking and showing them, and the content of presets and shows."""

import contextlib
from pathlib import Path
from typing import Any

from warpfuse.engine.bundle import describe_bundle, find_bundles, load_bundle
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.bundle_parts import LiveLora
from warpfuse.engine.errors import BundleError
from warpfuse.engine.redact import HIDDEN, redact
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.checks import check_early
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.crossfade import OF_THE_SHOW, timed
from warpfuse.graph.plan.cues import with_cue
from warpfuse.graph.plan.looks import look_of, show_of
from warpfuse.graph.plan.raw_keys import merge, recalled
from warpfuse.graph.plan.streams import COMMON, Streams, is_of_several, read_streams
from warpfuse.graph.runtime.context import Say
from warpfuse.stages.controls.settings import NetworkMapSettings
from warpfuse.stages.errors import StyleError
from warpfuse.stages.interim import Interim
from warpfuse.stages.sources.schemes import path_of, scheme_of
from warpfuse.web.style_pictures import StylePictures

Held = tuple[dict[str, Any], GraphConfig | Streams]
"""Keys as they were given, and the configuration made of them."""


class SessionSettings:
    """The keys as they were given, and the configuration they come to. Not thread-safe: its owner has the lock.

    selected        name of the stream that is shown and changed; "" in a run of one stream
    sent            files of keyframes that visitors sent, which they may name
    style_pictures  style images that visitors sent, which they may name
    fixed_files     visitors may name no other file of this machine, except those in the folder `uploads`
    """

    def __init__(
        self,
        keys: dict[str, Any],
        style_pictures: StylePictures,
        *,
        fixed_files: bool,
        uploads: Path | None,
        tell: Say,
    ) -> None:
        """tell: called with a line when a value was replaced by a default. Raises ConfigError for unusable keys."""
        self.keys, self.config = keys, _read(keys)
        self.selected = next(iter(self.config.configs), "") if isinstance(self.config, Streams) else ""
        self.sent: frozenset[str] = frozenset()
        self._style_pictures, self._fixed_files, self._uploads, self._tell = style_pictures, fixed_files, uploads, tell

    @property
    def now(self) -> GraphConfig:
        """The configuration of the selected stream."""
        return of_stream(self.config, self.selected)

    @property
    def is_host(self) -> bool:
        """The run is a stream host, which may be without streams."""
        return isinstance(self.config, Streams) and self.config.host

    def plain(self, interim: Interim | None = None) -> dict[str, Any]:
        """The settings without the looks, as plain types. Passwords in addresses are hidden.

        interim  of a picture: the cue of that picture is laid on top
        """
        now = self.now
        keys = now.model_dump(mode="json", exclude={"looks"})
        if interim is not None and interim.cue is not None and interim.cue < len(now.schedule.cues):
            with contextlib.suppress(
                ConfigError
            ):  # what the hand leaves of a cue may not go together: none of it holds
                seen = with_cue(now, interim.cue, interim.by_hand)
                keys |= seen.model_dump(mode="json", exclude={"looks", "schedule"})
        keys["source"], keys["sinks"] = redact(keys["source"]), [redact(sink) for sink in keys["sinks"]]
        return keys

    def given(self) -> dict[str, Any]:
        """The keys of a preset: the whole look with its defaults, and all other keys that differ from their defaults.

        Because of the defaults, loading a preset recalls the look whatever was set meanwhile.
        """
        whole = self.now.model_dump(mode="json")
        scales = {lora.name: lora.default for lora in _loras(self.now.bundle)}
        look = look_of(whole) | {"loras": scales | whole["loras"]}
        return self.now.model_dump(mode="json", exclude_defaults=True, exclude={*OF_THE_SHOW, "hooks"}) | look

    @property
    def looks(self) -> dict[str, dict[str, Any]]:
        """The looks by name."""
        return self.now.looks

    def show(self) -> dict[str, Any]:
        """The keys of a show file: looks, tempo, schedule and MIDI map, and nothing that belongs to this machine."""
        return show_of(self.now.model_dump(mode="json"))

    @property
    def streams(self) -> list[str]:
        """Names of the streams of a run of several."""
        return list(self.keys.get("streams", {}))

    def check_files(self, keys: dict[str, Any]) -> None:
        """Raise ConfigError if the keys of a new stream name files that a visitor may not name."""
        if "hooks" in keys:
            raise ConfigError(_NO_HOOKS)
        if self._fixed_files:
            named: dict[str, Any] = {key: keys[key] for key in ("source", "sinks", "images", "stages") if key in keys}
            _refuse_files(validate({}), validate(named), self._uploads, self._style_pictures, self.sent)

    def add(self, name: str, keys: dict[str, Any]) -> None:
        """Add the keys of a stream that has joined."""
        keys = merge(self.keys, {"streams": {name: keys}})
        self.take((keys, _read(keys)))

    def remove(self, name: str) -> None:
        """Remove the keys of a stream that has left. Except for a host, the last stream stays, to be started again."""
        others = {other: keys for other, keys in self.keys["streams"].items() if other != name}
        if others or self.is_host:
            keys = {**self.keys, "streams": others}
            self.take((keys, _read(keys)))

    def wanted(self, keys: dict[str, Any]) -> Held:
        """The settings with these keys on top, with every check that opens no network. Raises BadInput."""
        laid = self._with(timed(keys, self.now.bpm).keys)
        wanted = _read(laid)
        before, now = self.now, of_stream(wanted, self.selected)
        if now.hooks != before.hooks:
            raise ConfigError(_NO_HOOKS)
        if HIDDEN in "".join((now.source, *now.sinks)):
            raise ConfigError(f"{HIDDEN} stands for what is hidden in an address: give the whole address")
        if self._fixed_files:
            _refuse_files(before, now, self._uploads, self._style_pictures, self.sent)
        try:
            check_early(wanted, watched=True, was=self.config)
        except StyleError:
            if now.bundle == before.bundle or "prompt" in keys:
                raise
            self._tell(f"prompt {now.prompt!r} is none of bundle {now.bundle}: its own default is taken")
            return self.wanted({**keys, "prompt": "", "negative": ""})
        return laid, wanted

    def _with(self, keys: dict[str, Any]) -> dict[str, Any]:
        """The keys with others on top, of the selected stream; common keys of several streams are set for all."""
        if not isinstance(self.config, Streams) or not self.selected:
            return merge(self.keys, keys)
        for_all = {key: value for key, value in keys.items() if key in (*COMMON, "looks")}
        own = recalled({k: v for k, v in keys.items() if k not in for_all}, self.now.looks, self.now.model_dump())
        return merge(self.keys, {**for_all, "streams": {self.selected: own}})

    @property
    def both(self) -> Held:
        """The settings, for a later `take`."""
        return self.keys, self.config

    def take(self, held: Held) -> None:
        """Replace the settings."""
        self.keys, self.config = held

    def bundle(self) -> dict[str, Any]:
        """The bundle of the settings: its styles and what each is about, or that it takes text.

        known   names of those that can be chosen
        error   why that of the settings cannot be used
        thumbs  the styles that have a small picture (`thumb`), each with a token that changes with the picture
        images  style images that it takes
        """
        known = sorted(name for name in find_bundles() if _is_for_video(name))
        try:
            about = load_bundle(self.now.bundle).about
        except BundleError as error:  # it was there when it was chosen: the others can be chosen now
            nothing: dict[str, Any] = {"styles": {}, "thumbs": {}, "images": [], "default": "", "text": True}
            return {"name": self.now.bundle, "known": known, "error": redact(str(error)), **nothing}
        thumbs = {name: about.files[style.thumb][:12] for name, style in about.styles.items() if style.thumb}
        return {
            "name": about.name,
            "text": about.text is not None,
            "styles": {name: style.about for name, style in about.styles.items()},
            "thumbs": thumbs,
            "images": [image.name for image in about.images],
            "default": about.default_style,
            "known": known,
            "error": None,
        }

    def thumb(self, style: str) -> Path | None:
        """Path of the small JPEG of a style; None if it has none. Raises BundleError."""
        bundle = load_bundle(self.now.bundle)
        known = bundle.about.styles.get(style)
        return None if known is None or known.thumb is None else bundle.folder / known.thumb


def _read(keys: dict[str, Any]) -> "GraphConfig | Streams":
    return read_streams(keys) if is_of_several(keys) else validate(keys)


def of_stream(config: "GraphConfig | Streams", stream: str) -> GraphConfig:
    """The configuration of a stream; for a stream host without streams, the common keys."""
    if not isinstance(config, Streams):
        return config
    return config.configs[stream] if stream in config.configs else validate(dict(config.common))


def _is_for_video(bundle: str) -> bool:
    try:
        return isinstance(describe_bundle(bundle), BundleFile)
    except BundleError:
        return False


def _loras(bundle: str) -> list[LiveLora]:
    try:
        about = describe_bundle(bundle)
    except BundleError:
        return []  # opening it will say why
    return list(about.loras) if isinstance(about, BundleFile) else []


_NO_HOOKS = (
    "hooks: a file of Python is code, and no page may name it; give it in the graph file that the page starts with"
)


def _refuse_files(
    was: GraphConfig, wants: GraphConfig, uploads: Path | None, given: StylePictures, sent: frozenset[str]
) -> None:
    """Raise ConfigError where a key newly names a file, but for a source in the folder of uploads, and pictures that
    were given to the page. sent: files of keyframes among these."""
    if wants.stages.anchor.files - was.stages.anchor.files - sent:
        raise ConfigError(
            "stages.anchor: files can be named on the command line only, the page is open to other machines; send the"
            " picture with PUT /api/keyframe"
        )
    named = [("source", wants.source)] * (wants.source != was.source)
    named += [("sinks", sink) for sink in wants.sinks if sink not in was.sinks]
    for key, url in named:
        uploaded = key == "source" and uploads is not None and path_of(url).resolve().parent == uploads.resolve()
        if url and scheme_of(url) == "file" and not uploaded:
            raise ConfigError(f"{key}: files can be named on the command line only, the page is open to other machines")
    for name, control in wants.controls.items():
        if control.files - (was.controls[name].files if name in was.controls else frozenset()):
            raise ConfigError(
                f"controls.{name}: files can be named on the command line only, the page is open to other machines"
            )
    for name, image in wants.images.items():
        before = was.images[name].picture if name in was.images else ""
        if image.picture not in ("", before) and not given.holds(image.picture):
            raise ConfigError(
                f"images.{name}.picture: files can be named on the command line only; give the page the picture itself"
            )
    if wants.mask.kind == "file" and wants.mask.of != was.mask.of:
        raise ConfigError("mask.of: files can be named on the command line only, the page is open to other machines")
    of_bundle = wants.mask.kind == "network" or (wants.mask.kind == "map" and wants.mask.of not in wants.controls)
    networks = [("mask.of", was.mask.of, wants.mask.of)] * of_bundle
    for name, control in wants.controls.items():
        if isinstance(control, NetworkMapSettings):
            networks.append((f"controls.{name}.of", getattr(was.controls.get(name), "of", ""), control.of))
    known = find_bundles()
    for key, old, new in (("bundle", was.bundle, wants.bundle), ("flow", was.flow, wants.flow), *networks):
        if new != old and new not in known and new != "dis":
            names = ", ".join(sorted(known))
            raise ConfigError(f"{key}: expected one of {names}; folders can be named on the command line only")
