"""Stages around optical flow: where each pixel was, how far that may be believed, and warping along it.

Confidence (`formulas/confidence_mask.py`) is 1 where the flow can be believed, the colours fit and the point was inside
the frame; the distrust is dilated and feathered. Whether the flow can be believed is what the backward flow tells: the
two agree. DIS needs as long for the backward flow as for the flow itself, so it is computed only where less than 70 %
of a frame would be believed without it, at a cut above all. Elsewhere the matches decide (`cpu/occlusion.py`): what
came into view has no place in the past, so the flow gives it the place of something else, and of two pixels that are
matched with one place the one that fits it less came into view. `stages.flow.backward_flow: always` computes the
backward flow for every frame. A flow network gives both ways at once.

Confidence is judged in cells of 2 x 2 pixels of the flow. A latent cell is distrusted by the root mean square of its
pixels; their least confidence, which is safest, left out most cells along every edge, and with them half of what fusion
can steady. On the first frame and after a scene cut it is 0, and where it is 0 the fused picture is the unfused one bit
for bit.
"""
