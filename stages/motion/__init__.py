"""Stages of optical flow: the flow itself, its confidence, and warping along it.

The confidence (`formulas/confidence_mask.py`) of a pixel is 1 where the flow is consistent, the colours match and the
pixel was inside the last frame. Low confidence is then dilated and feathered. The flow is consistent where it agrees
with the backward flow. DIS takes as long for the backward flow as for the flow. So it is computed only for frames of
which less than 70 % would be trusted without it, mostly at cuts. Other frames are checked by their matches
(`cpu/occlusion.py`): a pixel that has just come into view was not in the last frame, so the flow matches it with the
place of another pixel. Of two pixels that are matched with one place, the one that fits it less is the new one.
`stages.flow.backward_flow: always` computes the backward flow for every frame. A flow network gives both flows at once.

The confidence is computed for cells of 2 x 2 pixels of the flow. The distrust of a latent cell is the root mean square
of that of its pixels. Taking the pixels' least confidence instead would be safest, but it left out most cells along
every edge, and with them half of the steadiness. On the first frame and after a cut the confidence is 0. Where it is 0,
the fused picture equals the unfused one bit for bit.
"""
