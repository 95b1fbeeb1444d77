#!/usr/bin/python3
"""A real RTSP server for the tests, run by the system's Python, which has GStreamer.

Arguments: PORT WIDTHxHEIGHT ARGB TRANSPORT [USER:PASS]. TRANSPORT is udp or tcp, the only one it takes, or any.
/live is a picture of one colour as live H.264, /sounding the same with a tick each second as G.711. Asked for port 0 it
takes a free one. The port is the line it prints.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

port, shape, colour, transport, account = sys.argv[1], sys.argv[2].split("x"), sys.argv[3], sys.argv[4], sys.argv[5:]
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
server.get_thread_pool().set_max_threads(-1)  # a client that waits for its first picture would keep the only one
factory = GstRtspServer.RTSPMediaFactory()
picture = (
    f"videotestsrc is-live=true pattern=solid-color foreground-color={colour} "
    f"! video/x-raw,format=I420,colorimetry=bt709,width={shape[0]},height={shape[1]},framerate=25/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 sliced-threads=false threads=1 "
    "! rtph264pay name=pay0 pt=96 config-interval=-1 "
)
factory.set_launch(f"( {picture} )")
sounding = GstRtspServer.RTSPMediaFactory()
ticks = "audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8"
sounding.set_launch(f"( {picture} {ticks} )")
sounding.set_shared(True)
factory.set_shared(True)
if transport != "any":
    factory.set_protocols({"udp": GstRtsp.RTSPLowerTrans.UDP, "tcp": GstRtsp.RTSPLowerTrans.TCP}[transport])
if account:
    user, _, password = account[0].partition(":")
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = "user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.from_string(permissions)[0])
server.get_mount_points().add_factory("/live", factory)
server.get_mount_points().add_factory("/sounding", sounding)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
