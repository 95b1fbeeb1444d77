"""Masks, for styling parts of a picture: where the mask is 0, the source is shown.

    mask   = from a network, a file or a control map, smoothed in time along the flow (`mask.py`)
    shown  = mask styled + (1 - mask) source                                           (`apply_mask.py`)

Note: after the loop. The mask is applied to a picture that is not fed back. The whole styled picture is fused into the
next frame, as without a mask. So pixels of the source never become part of the past, and a region that the mask newly
covers has a steady style already.
"""
