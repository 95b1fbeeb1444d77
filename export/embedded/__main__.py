"""python -m warpfuse.export.embedded --photos DIR --out DIR: paint, train and write the bundles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from warpfuse.engine.errors import BadInput

from . import bundle, checkpoint, train_autoencoder, train_flow, train_student
from .autoencoder import TinyDecoder, TinyEncoder
from .int8 import NAME as INT8
from .line_block import LineBlock
from .photographs import Picture, read, training_set
from .plates import Plate, plates
from .schedule import Length
from .styles import STYLES
from .unet import TinyUNet

SAID_EVERY = 10  # plates


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it.  What is learnt on the way (plates, checkpoints, log) lies in --work, beside --out by default."""
    parser = _parser()
    given = parser.parse_args(arguments)
    alone = {"int8", "past"} & set(given.parts)
    if alone:
        if len(given.parts) > 1:
            parser.error(f"--parts {min(alone)} trains nothing and is given alone; pictures make that network too")
        return _again(given)
    torch.set_num_threads(given.threads)
    try:
        work = checkpoint.folder_of(given.out, given.work, given.resume)
        photos = training_set(given.photos)
        shown = photos[0] if given.thumbnail is None else read(given.thumbnail)
        begun = None if given.start is None else bundle.read(given.start)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    with checkpoint.logged(work) as say:
        if "pictures" in given.parts:
            bundle.write(given.out, *_pictures(given, photos, begun, work, say), photos, given.seed, shown)
            say(f"wrote {given.out}")
        if "flow" in given.parts:
            _flow(given, photos, work, say)
    return 0


def _pictures(
    given: argparse.Namespace,
    photos: Sequence[Picture],
    begun: tuple[TinyEncoder, TinyDecoder, TinyUNet, LineBlock | None] | None,
    work: Path,
    say: Callable[[str], None],
) -> tuple[TinyEncoder, TinyDecoder, TinyUNet, LineBlock]:
    """The networks of the bundle at --out, trained, from `begun` on if there is that."""
    sides = (given.shortest, given.longest)
    total, painted = len(photos) * given.variants + given.pages, list[Plate]()
    for plate in plates(work / "plates", photos, given.variants, given.pages, sides, given.seed):
        painted.append(plate)
        if len(painted) % SAID_EVERY == 1:  # some seconds each
            say(f"painted {len(painted)} of {total} plates")
    say(f"{len(photos)} photographs, {len(painted)} plates in {len(STYLES)} styles")
    if begun is not None:
        encoder, decoder, unet, lines = begun
    else:
        length = Length(given.steps_autoencoder, given.minutes_autoencoder)
        encoder, decoder = train_autoencoder.train(
            photos, painted, length, given.seed, work / "autoencoder.pt", say, given.batch // 2
        )
        torch.manual_seed(given.seed)
        unet, lines = TinyUNet(len(STYLES)), None
    length = Length(given.steps_student, given.minutes_student)
    unet, lines = train_student.train(
        unet, lines or bundle.line_block(), painted, encoder, decoder, length, given.seed,
        work / "student.pt", say, given.batch, solve=lines is None,
    )  # fmt: skip
    return encoder, decoder, unet, lines


def _again(given: argparse.Namespace) -> int:
    """A network that is made without training, of the bundle at --out, which is there already."""
    try:
        photos = training_set(given.photos)
        if "past" in given.parts:
            bundle.write_past(given.out, photos, given.seed)
            print(f"wrote {given.out / bundle.PAST}")
        else:
            least_db = bundle.write_int8(given.out, photos, given.seed)
            print(f"wrote {given.out / INT8}: {least_db:.1f} dB or more from the UNet in float, in every style")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _flow(given: argparse.Namespace, photos: Sequence[Picture], work: Path, say: Callable[[str], None]) -> None:
    """The flow network: the bundle beside --out, its name with -flow behind it."""
    length = Length(given.steps_flow, given.minutes_flow)
    network = train_flow.train(photos, length, given.seed, work / "flow.pt", say, given.batch // 2)
    out = given.out.with_name(given.out.name + "-flow")
    bundle.write_flow(out, network)
    say(f"wrote {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m warpfuse.export.embedded", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder; its INDEX.tsv names the licences")
    parser.add_argument("--thumbnail", type=Path, help="photograph shown in every style; the first by default")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle; that of the flow is OUT-flow")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["pictures", "flow"],
        choices=["pictures", "flow", "int8", "past"],
        help="what to train; int8 and past train nothing: the bundle at --out gets its UNet in 8-bit integers, or its "
        "encoder of the past, again",
    )
    parser.add_argument(
        "--start", type=Path, help="bundle whose networks the pictures go on from; encoder and decoder stay"
    )
    parser.add_argument("--work", type=Path, help="folder for plates, checkpoints and the log")
    parser.add_argument("--variants", type=int, default=4, help="plates of every photograph")
    parser.add_argument("--pages", type=int, default=16, help="plates of made-up pages with text")
    parser.add_argument("--shortest", type=int, default=288, help="least long side of a plate, pixels")
    parser.add_argument("--longest", type=int, default=672, help="greatest long side of a plate, pixels")
    parser.add_argument("--minutes-autoencoder", type=float, default=20.0)
    parser.add_argument("--minutes-student", type=float, default=180.0, help="UNet and line block")
    parser.add_argument("--minutes-flow", type=float, default=75.0)
    parser.add_argument("--steps-autoencoder", type=int, help="instead of minutes; repeatable")
    parser.add_argument("--steps-student", type=int, help="instead of minutes")
    parser.add_argument("--steps-flow", type=int, help="instead of minutes")
    parser.add_argument(
        "--batch", type=int, default=24, help="crops a step of UNet and line block; half for the others"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from what lies in --work")
    return parser


if __name__ == "__main__":
    sys.exit(main())
