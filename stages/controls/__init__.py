"""Control maps: inputs of ControlNets and T2I-Adapters, computed from each frame.

A kind of map is a module of this folder with the name of the kind, and a settings class in `settings.py`. The module
has a function `open(opening)`, whose control is `opening.config.controls[control_of(opening.stage)]`. It returns a
stage:

    inputs    frame  `Picture`: the frame of the source, at the size of the networks
              past   `Picture`: the last styled picture, warped onto the frame, for settings with `takes_past`; a bare
                     `Frame` if there is none yet
    gives     `Picture`, for every frame; a map of one channel is repeated three times
    update    takes new settings of its control
    held      gives a bare `Frame`, since held frames need no map

`HostMap` is this stage for a function on uint8 pictures. `diffusion/hint.py` passes the maps to their networks.
"""
