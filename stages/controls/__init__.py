"""Control maps: what steers a ControlNet or a T2I-Adapter, made of each frame.

A kind of map is a module here, named as the kind, and its settings in `settings.py`. The module has `open(opening)`;
the settings of its own control are `opening.config.controls[control_of(opening.stage)]`. It gives a stage:

    inputs    frame  `Picture`: the frame of the source, at the size of the networks
              past   `Picture`: the last styled picture warped onto the frame, where the settings say `takes_past`;
                     `Frame` where there is none yet
    gives     `Picture`, of every frame; a map of one channel three times
    update    takes the settings of its control, when they change
    held      gives a `Frame`: nothing is made of a frame that the networks are spared

`HostMap` is that stage for a function on pictures of bytes. `diffusion/hint.py` hands the maps to their networks.
"""
