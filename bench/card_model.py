"""What a card should reach, by a model: the prediction beside each figure that a card gave.

    python bench/card_model.py [bench.json ...]

From a file of `warpfuse bench --json`, as bench/card.py writes them, it takes the measured times of the networks and
predicts whole frames. Without a file it predicts SD-Turbo at 512x512, one step, on two cards, from published times
(StreamDiffusion's README: 106 and 94 frames/s on an RTX 4090; those of the H200 are an estimate, +-30 %).

The model: a card does one thing at a time. A frame takes its networks, and kernels of ours of `KERNEL_MS` each. Flow
runs on the host beside the loop of the frame before. The host launches the loop for every frame, kernel by kernel or as
one graph. Whichever of card, host and flow takes longest sets the rate. Time beyond the prediction is launching,
waiting or copying.

The numbers of kernels are those that tests/graph/test_on_a_card.py counts. The times in capitals are assumed: no card
has given them yet.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

KERNELS_IN_LOOP, KERNELS_BESIDE = 9, 12
LAUNCHES_OF_GRAPH = 3  # the graph, and a copy before and behind it
KERNEL_MS = 0.003  # a small kernel on the card, with the gap behind it
LAUNCH_MS = 0.0065  # a launch from Python
DIS_MS = 5.5  # flow on a desktop's host with its copies, at 512x512; on a server's slower cores 7
NETWORKS = ("encoder", "encoder_past", "unet", "lines", "decoder")  # the figures of bench.json that are of one network
WHOLE = ("device to device", "host to host", "source to sink")
COPIES_MS = 0.2  # a picture up and a picture down, beside the loop


@dataclass(frozen=True)
class Frame:
    """networks_ms: of all networks of a frame; dis_ms: flow on the host, 0: none; captured: the loop is one graph."""

    networks_ms: float
    dis_ms: float = DIS_MS
    captured: bool = True

    @property
    def card_ms(self) -> float:
        """Time of the card."""
        return self.networks_ms + (KERNELS_IN_LOOP + KERNELS_BESIDE) * KERNEL_MS

    @property
    def host_ms(self) -> float:
        """Time in which the host launches the loop."""
        return LAUNCH_MS * (LAUNCHES_OF_GRAPH if self.captured else KERNELS_IN_LOOP + 4)

    @property
    def ms(self) -> float:
        """Time between two frames of a source that can wait."""
        return max(self.card_ms, self.host_ms, self.dis_ms)

    @property
    def live_ms(self) -> float:
        """Time between two frames of a live source, of which two are on their way at once."""
        return max(self.ms, (self.dis_ms + self.card_ms + self.host_ms + COPIES_MS) / 2)


PUBLISHED = {"RTX 4090": (0.9, 7.3, 1.25, 5.5), "H200": (0.4, 4.4, 0.6, 7.0)}
"""Encoder, UNet and decoder of SD-Turbo with TAESD, ms a call, and DIS. A frame takes two encodings."""

FLOW_NETWORK_MS = 1.0


def predicted(figures: dict[str, dict[str, float | None]], flow: str, captured: bool) -> Frame:
    """The frame of what `warpfuse bench` measured of the networks."""
    networks = [one for name, one in figures.items() if name in NETWORKS]
    networks_ms = sum((one["ms_p50"] or 0) * (one["calls_a_frame"] or 0) for one in networks)
    return Frame(networks_ms, DIS_MS if flow == "dis" else 0.0, captured)


def beside(path: Path) -> list[str]:
    """A line for each whole frame that was measured: the figure, and what the model says."""
    told = json.loads(path.read_text(encoding="utf-8"))
    frame = predicted(told["figures"], told["flow"], told["backend"] != "onnxruntime")
    lines = [f"{path.name}: {told['bundle']} by {told['backend']}, {told['size']}, networks {frame.networks_ms:.2f} ms"]
    for name in WHOLE:
        says_ms = frame.card_ms if name == WHOLE[0] else frame.ms
        lines.append(f"  {name:<20} {1000 / told['figures'][name]['fps']:8.2f} ms, predicted {says_ms:8.2f}")
    return lines


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]]
    for path in paths:
        print("\n".join(beside(path)))
    if paths:
        return
    result = {}
    for card, (encoder, unet, decoder, dis_ms) in PUBLISHED.items():
        floor = 2 * encoder + unet + decoder
        for way, frame in {
            "stage by stage": Frame(floor, dis_ms, captured=False),
            "one graph": Frame(floor, dis_ms),
            "one graph, flow on the card": Frame(floor + FLOW_NETWORK_MS, 0.0),
        }.items():
            result[f"{card}, {way}"] = {
                "ms": round(frame.ms, 2), "fps": round(1000 / frame.ms, 1), "live_ms": round(frame.live_ms, 2),
                "share_of_floor": round(floor / frame.ms, 2), "host_ms": round(frame.host_ms, 2),
            }  # fmt: skip
            print(f"{card + ', ' + way:<40}", result[f"{card}, {way}"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
