"""Parts of a picture alone: where a mask is 0, the source is shown.

    mask   = of a network, of a file, or of a control map, held steady along the flow (`mask.py`)
    shown  = mask styled + (1 - mask) source                                            (`apply_mask.py`)

Note: behind the loop. The mask is laid over the picture when nothing of it comes back any more. What is fused into the
next frame is the styled picture in whole, as it is without a mask. So no source that was shown is dragged along as
past, and where the mask moves onto a thing, the thing's style is there and steady.
"""
