"""Encoding the fed-back picture, by the bundle's cheaper encoder if it has one."""

from warpfuse.stages.diffusion.encode import Encode
from warpfuse.stages.diffusion.settings import past_encoder
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    about = opening.bundle.about
    network = past_encoder(opening.config.stages.encode, about.networks)
    return Encode(opening.network(network), about.latent.scale)
