"""The picture of a graph as it is before it is rounded to bytes."""

from warpfuse.stages.download import Download


class Recorded(Download):
    """The last stage, which keeps the picture as it is before it is rounded."""

    last = None

    def __call__(self, frame):
        Recorded.last = frame.rgb[0].permute(1, 2, 0).numpy().copy()
        return super().__call__(frame)
