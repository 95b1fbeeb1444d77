"""Control maps: what steers a ControlNet or a T2I-Adapter, made of each frame.

A kind of map is a module here, named as the kind, and its settings in `settings.py`. The module has `open(opening)`;
the settings of its own control are `opening.config.controls[control_of(opening.stage)]`. It gives a stage:

    inputs    frame  "rgb" [1, 3, h, w] float32 in [0, 1]: the frame of the source, at the size of the networks
              past   "rgb" likewise, the last styled picture warped onto the frame, where the settings say `takes_past`;
                     without "rgb" where there is none yet
    gives     "rgb" [1, 3, h, w] float32 in [0, 1], of every frame; a map of one channel three times
    update    takes the settings of its control, when they change
    held      gives a frame without "rgb": nothing is made of a frame that the networks are spared

`HostMap` is that stage for a function on pictures of bytes. `diffusion/hint.py` hands the maps to their networks.
"""
