"""The live pictures: the newest one each time, whichever way they go."""

import asyncio

import cv2
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from warpfuse.graph.errors import ConfigError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.web.pictures import Look, Pictures
from warpfuse.web.preview import BOUNDARY, Peers, PictureTrack, jpegs


def show(pictures, value, size=(48, 64)):
    seq = pictures.shown.number if pictures.shown else 0
    pictures.show(RawFrame(Stamp(seq, seq), np.full((*size, 3), value, np.uint8)))


def brightness(part):
    data = part.partition(b"\r\n\r\n")[2]
    return round(float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()))


def test_a_slow_viewer_gets_the_newest_picture_and_none_between():
    pictures = Pictures()

    async def scene():
        show(pictures, 10)
        body = jpegs(pictures, Look())
        assert await anext(body) == f"--{BOUNDARY}\r\n".encode()
        first = await anext(body)
        assert pictures.viewers == 1
        for value in (20, 30, 40):
            show(pictures, value)
        assert (await anext(body)).strip() == f"--{BOUNDARY}".encode()
        second = await anext(body)
        await body.aclose()
        return brightness(first), brightness(second)

    assert asyncio.run(scene()) == (10, 40)
    assert pictures.viewers == 0


def test_a_track_gives_the_newest_picture_with_even_sides_and_times_that_grow():
    pictures = Pictures()

    async def scene():
        track = PictureTrack(pictures, Look())
        waiting = asyncio.create_task(track.recv())
        await asyncio.sleep(0)
        show(pictures, 10, (47, 63))
        first = await waiting
        show(pictures, 20)
        show(pictures, 1400 % 256, (720, 2000))
        return first, await track.recv()

    first, second = asyncio.run(scene())
    assert (first.width, first.height) == (62, 46)
    assert (second.width, second.height) == (1280, 460) and second.pts > first.pts
    assert round(second.to_ndarray(format="rgb24").mean()) == 1400 % 256


@pytest.mark.timeout(60)
def test_a_peer_sees_the_pictures_and_leaves_nothing_behind():
    pictures = Pictures()

    async def scene():
        peers = Peers(pictures)
        viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        viewer.addTransceiver("video", direction="recvonly")
        arrived = asyncio.get_running_loop().create_future()
        viewer.on("track", arrived.set_result)
        await viewer.setLocalDescription(await viewer.createOffer())
        answer = await peers.answer("one", viewer.localDescription.sdp, Look())
        await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        track = await arrived
        showing = asyncio.create_task(_keep_showing(pictures))
        try:
            frame = await track.recv()
            assert pictures.viewers == 1
            peers.look("one", Look("side"))
            while frame.width == 64:
                frame = await track.recv()
        finally:
            showing.cancel()
            await viewer.close()
            await peers.close()
        return frame.width, round(frame.to_ndarray(format="rgb24")[:, -60:].mean())

    width, value = asyncio.run(scene())
    assert width == 64 + 4 + 64 and abs(value - 120) <= 3
    assert pictures.viewers == 0


async def _keep_showing(pictures):
    while True:
        show(pictures, 120)
        await asyncio.sleep(0.04)


def test_what_is_no_offer_is_refused_and_forgotten():
    async def scene():
        peers = Peers(Pictures())
        for _ in range(20):  # more than there is room for
            with pytest.raises(ConfigError, match="no offer"):
                await peers.answer("x", "v=0\r\nnonsense", Look())
        await peers.close()

    asyncio.run(scene())
