"""Which knob does what: short forms, ranges, and what is no map."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.midi_keys import check_map, keys_at
from warpfuse.graph.plan.raw_keys import merge

MAP = {
    "cc 7": "strength",
    "cc 8": {"key": "stages.fuse.weight", "least": 0.9, "most": 0.1},
    "cc 9": "steps",
    "cc 10": "mask.invert",
    "cc 11 channel 2": "controls.canny.scale",
    "note 36": "look storm",
    "note 37": {"look": "calm", "over_beats": 4},
    "note 38": "tap",
}


def test_a_knob_goes_from_one_end_of_its_range_to_the_other():
    midi = validate({"midi": MAP}).midi
    assert [keys_at(midi["cc 7"], share) for share in (0, 0.5, 1)] == [{"strength": n} for n in (0, 0.5, 1)]
    weights = [keys_at(midi["cc 8"], share)["stages"]["fuse"]["weight"] for share in (0, 0.25, 1)]
    assert weights == pytest.approx([0.9, 0.7, 0.1])
    assert [keys_at(midi["cc 9"], share) for share in (0, 1)] == [{"steps": 1}, {"steps": 20}]
    assert [keys_at(midi["cc 10"], share) for share in (0.49, 0.5)] == [{"mask": {"invert": n}} for n in (False, True)]
    assert keys_at(midi["cc 11 channel 2"], 0.5) == {"controls": {"canny": {"scale": 0.5}}}


def test_pads_recall_looks_and_do_what_a_word_says():
    midi = validate({"midi": MAP}).midi
    assert midi["note 36"].recall() == {"look": "storm"}
    assert midi["note 37"].recall() == {"look": "calm", "over_beats": 4}
    assert midi["note 38"].do == "tap" and not midi["note 38"].key


def test_a_map_is_read_again_from_what_it_is_written_as():
    config = validate({"midi": {**MAP, " cc  07": "bpm"}})
    assert validate({"midi": config.model_dump(mode="json")["midi"]}).midi == config.midi


def test_a_knob_that_is_mapped_anew_forgets_what_it_was_and_none_takes_it_out():
    keys = merge({"midi": MAP}, {"midi": {"cc 8": {"key": "strength"}, "note 36": None}})
    assert keys["midi"]["cc 8"] == {"key": "strength"} and "note 36" not in keys["midi"] and "cc 7" in keys["midi"]


@pytest.mark.parametrize(
    ("midi", "words"),
    [
        ({"cc 128": "strength"}, "expected cc or note, a number from 0 to 127"),
        ({"knob 1": "strength"}, "expected cc or note"),
        ({"cc 1 channel 17": "strength"}, "a channel from 1 to 16"),
        ({"cc 1": "stregth"}, "midi.cc 1: key 'stregth': expected a number or a switch"),
        ({"cc 1": "prompt"}, "midi.cc 1: key 'prompt': expected a number or a switch"),
        ({"cc 1": "seed"}, "midi.cc 1: key 'seed'"),
        ({"cc 1": {"key": "strength", "most": 3}}, "midi.cc 1: key 'strength' goes from 0 to 1, got 3"),
        ({"cc 1": "pace.deadline_ms"}, "has no bounds of its own: give least and most"),
        ({"cc 1": {"key": "strength", "look": "a"}}, "expected one of key, look and do, got key and look"),
        ({"cc 1": {}}, "got none"),
        ({"cc 1": {"do": "dance"}}, "'start', 'stop', 'pause', 'record', 'snapshot' or 'tap', got 'dance'"),
        ({"cc 1": {"key": "strength", "over_s": 3}}, "a crossfade, over_s or over_beats, is for a look"),
        ({"cc 1": {"look": "a", "least": 3}}, "least and most are for a key"),
        ({"cc 1": 7}, "midi.cc 1"),
        (["cc 1"], "midi"),
    ],
)
def test_what_is_no_map_is_told_in_one_line(midi, words):
    with pytest.raises(ConfigError) as refused:
        check_map(validate({"midi": midi}).midi)
    assert words in str(refused.value) and "\n" not in str(refused.value)
