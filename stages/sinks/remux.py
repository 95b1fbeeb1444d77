"""A program that publishes the NUT stream on its standard input, without re-encoding, at the URL $WARPFUSE_PUBLISH.

It is a process and not a thread, because a peer that stops responding can block its writer despite timeouts, and only a
process can be killed. It imports PyAV and nothing of this package, so that it starts quickly. It prints `live` when the
peer has accepted the header, and an error as JSON.

The URL is in the environment, since every user of the machine can read arguments.
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
_AT_ONCE = {"flush_packets": "1", "max_interleave_delta": "1"}  # us: two pictures never wait for sound
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Publish the input. Returns 0 at its end, 1 when the peer is lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # else a blocked write would outlive the parent
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):  # sent to the whole process group; the parent ends the input instead
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    av.logging.set_level(None)
    url = os.environ.pop("WARPFUSE_PUBLISH")
    try:
        _publish(url)
    except (av.error.FFmpegError, OSError) as error:
        report = {"error": error.strerror or type(error).__name__, "final": isinstance(error, _FOR_GOOD)}
        print(json.dumps(report), flush=True)
        return 1
    return 0


def _publish(url: str) -> None:
    scheme = url.partition(":")[0].lower()
    # Each muxer gets its own options only, since PyAV warns about unused ones.
    options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {"flvflags": "no_duration_filesize"}
    # 'pipe:0' instead of sys.stdin, since a Python reader would wait for full buffers.
    with av.open(
        "pipe:0", format="nut", options={"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
    ) as pipe:
        out: Any = av.open(url, "w", format=_MUXERS[scheme], options={**options, **_AT_ONCE})
        targets = {stream.index: out.add_stream_from_template(stream) for stream in pipe.streams}
        out.start_encoding()
        print("live", flush=True)
        for packet in pipe.demux():
            if packet.size:
                packet.stream = targets[packet.stream_index]
                out.mux(packet)
        out.close()


if __name__ == "__main__":
    sys.exit(main())
