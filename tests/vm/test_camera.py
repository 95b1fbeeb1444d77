"""A real Video4Linux camera, the kernel's own virtual one, in a virtual machine."""

import json

import pytest

# vivid's first picture: 75 % colour bars.
BARS = [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (0, 0, 0)]


@pytest.fixture(scope="module")
def facts(guest):
    """What the guest's script found, merged; those of a format under its name."""
    rc, output = guest["guest_camera.py"]
    found = {}
    for line in output.splitlines():
        _, mark, text = line.partition("fact {")  # the console's own codes may stand before it
        if mark:
            fact = json.loads("{" + text)
            found.update({fact["form"]: fact} if "form" in fact else fact)
    assert rc == 0, output[-3000:]
    return found


@pytest.mark.timeout(300)
def test_the_camera_is_listed_with_its_modes(facts):
    assert facts["card"] == "vivid" and facts["modes"] > 100
    assert facts["usual"] == "/dev/video0,640x480@25,yuyv", "it gives 1280x720 only at 15 a second"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["yuyv", "nv12", "rgb3"])
def test_pictures_have_the_colours_the_camera_sees(facts, form):
    fact = facts[form]
    assert fact["size"] == [1280, 720] and fact["fps"] == "10" and fact["live"] and fact["ended"] and fact["later"]
    for seen, meant in zip(fact["bars"], BARS, strict=True):
        assert max(abs(a - b) for a, b in zip(seen, meant, strict=True)) <= 6, (seen, meant)


@pytest.mark.timeout(300)
def test_what_the_camera_does_not_give_and_a_second_reader_are_refused(facts):
    assert "Nearest are:" in facts["refused"] and facts["busy"] == "another program uses the camera"
    assert facts["again"] == ["/dev/video0"], "asking leaves the device as it was"


@pytest.mark.timeout(300)
def test_the_camera_goes_by_its_link_and_by_a_part_of_its_name(facts):
    link = "/dev/v4l/by-id/usb-vivid-video-index0"
    assert facts[link] == facts["camera:VIV"] == [180, 320, 3] and facts["links"] == [link]


@pytest.mark.timeout(300)
def test_unplugged_and_plugged_in_again_it_comes_back(facts):
    assert facts["unplugged"] == "network" and facts["held"] and facts["back"]
    assert facts["shape"] == [90, 160, 3] and facts["reconnects"] == 1
    assert [line.split(": ", 1)[1].split(" (")[0] for line in facts["news"] if "stalled" not in line] == [
        "live", "reconnecting", "live again",
    ]  # fmt: skip
