"""A program: takes a NUT stream on its standard input and publishes it, unchanged, at $WARPFUSE_PUBLISH.

It is a process and no thread, because a peer that freezes holds whoever writes to it for as long as it likes, whatever
timeouts were set; only a process can then be killed. It imports PyAV and nothing of this package, so it starts at once.
On its standard output it says `live` once the peer has taken the header, and at the end what went wrong, as JSON.

The address is in the environment: an argument could be read by every user of the machine.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

import av
import av.error

_FOR_GOOD = (
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.HTTPBadRequestError,
    av.error.ProtocolNotFoundError,
)
_MUXERS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Publish until the input ends: 0. Or until the peer is lost: 1."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a frozen peer must not keep an orphan
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):  # these reach the whole group; the end comes down the pipe
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    av.logging.set_level(None)
    url = os.environ.pop("WARPFUSE_PUBLISH")
    try:
        _publish(url)
    except (av.error.FFmpegError, OSError) as error:
        said = {"error": error.strerror or type(error).__name__, "final": isinstance(error, _FOR_GOOD)}
        print(json.dumps(said), flush=True)
        return 1
    return 0


def _publish(url: str) -> None:
    scheme = url.partition(":")[0].lower()
    # Each muxer its own: PyAV warns of an option that was not used.
    options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {"flvflags": "no_duration_filesize"}
    # 'pipe:0', not sys.stdin: a Python reader waits for full buffers.
    with av.open(
        "pipe:0", format="nut", options={"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
    ) as pipe:
        stream = pipe.streams.video[0]
        out: Any = av.open(url, "w", format=_MUXERS[scheme], options={**options, "flush_packets": "1"})
        target = out.add_stream_from_template(stream)
        out.start_encoding()
        print("live", flush=True)
        for packet in pipe.demux(stream):
            if packet.size:
                packet.stream = target
                out.mux(packet)
        out.close()


if __name__ == "__main__":
    sys.exit(main())
