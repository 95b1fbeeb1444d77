"""A real card decodes as the host does; a stand-in does in `tests/stages/sources/test_decoding_on_a_card.py`."""

import numpy as np
import pytest

from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.shipped_clip import CLIP
from warpfuse.stages.card_decoder import CardDecoder
from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import CardFrame
from warpfuse.stages.sources.file import FileSource
from warpfuse.stages.transfer.upload import Upload


@pytest.mark.gpu
def test_a_card_decodes_what_the_host_does(cuda):
    decoder, frames = CardDecoder("cuda:0"), 24
    try:
        decoder.settings()
    except SourceError as error:
        pytest.skip(str(error))
    host, there = FileSource(CLIP, frames=frames), FileSource(CLIP, frames=frames, decoder=decoder)
    upload = Upload((host.info.width, host.info.height), "cuda:0")
    with on(new_stream("cuda:0")):
        for _ in range(frames):
            expected, found = host.read(), there.read()
            assert isinstance(found, CardFrame) and np.array_equal(found.rgb, expected.rgb)
            rgb = (255 * upload(found).rgb.cpu()).round()[0].permute(1, 2, 0).int().numpy()
            assert np.abs(rgb - expected.rgb.astype(int)).max() <= 1
        upload.close()
    host.close(), there.close()
