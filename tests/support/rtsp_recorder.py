#!/usr/bin/python3
"""An RTSP server that takes RECORD at /live and writes what comes to a file: PORT FILE SOUND [USER:PASSWORD].

Run by Debian's Python, which has GStreamer's bindings. With "play" for FILE, /live is handed on at /watch instead.
SOUND is "sound" for a stream with AAC beside the picture, else "".
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

H264 = "video/x-h264,stream-format=byte-stream,alignment=au"
AAC = "rtpmp4gdepay name=depay1 ! aacparse ! mux."
HOP = 'caps="application/x-rtp,media=video,encoding-name=H264,clock-rate=90000,payload=96"'


def main(port: str, received: str, sound: str = "", login: str = "") -> None:
    """Serve until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    hop = int(port) + 1 if int(port) < 65535 else 1024
    record = GstRtspServer.RTSPMediaFactory()
    record.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    record.set_latency(0)
    factories = [record]
    mounts = server.get_mount_points()
    parse = f"rtph264depay name=depay0 ! {H264} ! h264parse config-interval=-1 ! {H264}"
    if received == "play":
        record.set_launch(
            f"( {parse} ! rtph264pay config-interval=-1 pt=96 ! "
            f"udpsink host=127.0.0.1 port={hop} sync=false async=false )"
        )
        play = GstRtspServer.RTSPMediaFactory()
        play.set_shared(True)
        play.set_latency(0)
        play.set_launch(
            f"( udpsrc address=127.0.0.1 port={hop} buffer-size=4000000 {HOP} ! rtph264depay ! {H264} ! "
            f"h264parse config-interval=-1 ! {H264} ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        mounts.add_factory("/watch", play)
        factories.append(play)
    else:
        record.set_launch(
            f'( {parse} ! mpegtsmux name=mux ! filesink location="{received}" sync=false async=false buffer-mode=2 '
            f"{AAC if sound else ''} )"
        )
    mounts.add_factory("/live", record)
    if login:
        user, _, password = login.partition(":")
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_digest(user, password, token)
        server.set_auth(auth)
        role = "user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
        for factory in factories:
            factory.add_role_from_structure(Gst.Structure.from_string(role)[0])
    server.get_thread_pool().set_max_threads(-1)  # its one thread would wait for a picture before it lets one in
    assert server.attach(None) > 0
    print("ready", flush=True)
    GLib.timeout_add_seconds(2, lambda: (server.get_session_pool().cleanup(), True)[1])
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
