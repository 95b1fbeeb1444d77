"""Between hosts nothing goes without keys, and nobody gets in who is not on the list."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import zmq
import zmq.utils.monitor
from support.shared_ends import pump

from warpfuse.graph.errors import ConfigError, KeysMissing
from warpfuse.graph.links.curve import Keys, admission, make_keys
from warpfuse.graph.links.inline import parse_coding
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.transports import open_inlet, open_outlet
from warpfuse.stages.frame import Latent, RawFrame, Stamp

PLAN = LinkPlan("a->b.frame", "a", "b", "frame", transport="inline", endpoint="tcp://127.0.0.1:0")


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys")
    return Keys(tmp_path / "keys")


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(0)


def _frame(seq, side=200):
    picture = np.zeros((side, side, 3), np.uint8)
    picture[:, :, 0] = np.arange(side, dtype=np.uint8)
    picture[seq:, :, 1] = 200
    return RawFrame(Stamp(seq, seq), picture)


@pytest.mark.parametrize("coding", ["raw", "lz4", "jpeg:90"])
def test_frames_cross_encrypted_in_every_coding(context, keys, coding):
    plan = replace(PLAN, coding=coding)
    with admission(context, keys):
        outlet = open_outlet(context, plan, 1, keys=keys)
        inlet = open_inlet(context, replace(plan, endpoint=outlet.endpoint), 1, keys=keys)
        for seq in range(4):
            outlet.offer(seq, _frame(seq))
            while not inlet.ready:
                pump(outlet, inlet)
            got, sent = inlet.take(), _frame(seq)
            worst = np.abs(got.rgb.astype(int) - sent.rgb).max()
            assert worst <= (60 if coding.startswith("jpeg") else 0)
            assert np.abs(got.rgb.astype(int) - sent.rgb).mean() < 3
            inlet.done()
        tensor = Latent(Stamp(4, 0), torch.arange(100_000).float())
        outlet.offer(4, tensor)
        pump(outlet, inlet)
        assert torch.equal(inlet.take().z, tensor.z), "what is no picture is never coded with loss"
        inlet.done()
        outlet.finish()
        pump(outlet, inlet)
        assert (inlet.ended, outlet.finished, inlet.refused, outlet.refused) == (True, True, 0, 0)
        inlet.close()
        outlet.close()


@pytest.mark.parametrize("side", [open_outlet, open_inlet])
def test_tcp_without_keys_is_refused_in_one_line(context, side):
    with pytest.raises(KeysMissing, match=r"no keys were given\. Make them with: warpfuse keys DIR") as refused:
        side(context, PLAN, 1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("side, lost", [(open_outlet, "server.key_secret"), (open_inlet, "server.key")])
def test_a_key_that_is_missing_is_named(context, keys, side, lost):
    (keys.folder / lost).unlink()
    with pytest.raises(KeysMissing, match=f"{lost} is not there"):
        side(context, PLAN, 1, keys=keys)


def test_a_secret_that_others_can_read_is_refused(context, keys):
    (keys.folder / "server.key_secret").chmod(0o644)
    with pytest.raises(KeysMissing, match="chmod 600"):
        open_outlet(context, PLAN, 1, keys=keys)


def test_an_empty_allow_list_is_an_error_and_not_a_link_nobody_can_read(context, keys):
    (keys.allowed / "client.key").unlink()
    with pytest.raises(KeysMissing, match="no reader could connect"), admission(context, keys):
        pass


@pytest.mark.parametrize("known", [False, True])
def test_a_reader_whose_key_is_not_on_the_list_never_gets_a_frame(context, keys, tmp_path, known):
    make_keys(tmp_path / "stranger")
    stranger = Keys(tmp_path / "stranger")
    shutil.copy(keys.folder / "server.key", stranger.folder / "server.key")
    if known:  # the control: the same reader, on the list
        shutil.copy(stranger.folder / "client.key", keys.allowed / "other.key")
    with admission(context, keys):
        outlet = open_outlet(context, PLAN, 1, keys=keys)
        outlet.offer(0, _frame(0))
        inlet = open_inlet(context, replace(PLAN, endpoint=outlet.endpoint), 1, keys=stranger)
        events = inlet.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        assert events.poll(10_000), "the handshake has an end"
        event = zmq.utils.monitor.recv_monitor_message(events)["event"]
        assert event == (zmq.EVENT_HANDSHAKE_SUCCEEDED if known else zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        pump(outlet, inlet)
        assert (outlet.sent, inlet.ready) == ((1, True) if known else (0, False))
        inlet.socket.disable_monitor()
        events.close()
        inlet.close()
        outlet.close()


def test_without_a_list_in_force_nobody_gets_in(context, keys):
    outlet = open_outlet(context, PLAN, 1, keys=keys)
    outlet.offer(0, _frame(0))
    inlet = open_inlet(context, replace(PLAN, endpoint=outlet.endpoint), 1, keys=keys)
    pump(outlet, inlet)
    assert (outlet.sent, inlet.ready) == (0, False)
    inlet.close()
    outlet.close()


def test_a_port_is_bound_again_by_the_next_epoch(context, keys):
    with admission(context, keys):
        first = open_outlet(context, PLAN, 1, keys=keys)
        plan = replace(PLAN, endpoint=first.endpoint)
        late = open_inlet(context, plan, 1, keys=keys)
        pump(first, late)
        first.close()
        second = open_outlet(context, plan, 2, keys=keys)
        inlet = open_inlet(context, plan, 2, keys=keys)
        second.offer(0, _frame(0))
        while not inlet.ready:
            pump(second, inlet)
        assert inlet.take().stamp.seq == 0
        assert not late.ready
        for end in (late, inlet, second):
            end.close()


@pytest.mark.parametrize("text", ["zip", "jpeg", "jpeg:0", "jpeg:101", "jpeg:x", ""])
def test_a_coding_that_does_not_exist_is_refused(text):
    with pytest.raises(ConfigError, match="expected raw, lz4 or jpeg:QUALITY"):
        parse_coding(text)
