"""The picture of a graph before it is rounded to uint8."""

from warpfuse.stages.transfer.download import Download


class Recorded(Download):
    """The last stage, which records the picture before rounding."""

    last = None

    def __call__(self, frame):
        Recorded.last = frame.rgb[0].permute(1, 2, 0).numpy().copy()
        return super().__call__(frame)
