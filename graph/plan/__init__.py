"""What a run will be: its configuration, its stages, lanes and links, and where each stage works. Nothing is opened.

Settings are numbered (`setting_versions.py`): the source stamps each frame with the newest, and a stage takes them over
with the first frame that carries them. So a change reaches all stages between the same two frames.

Held frames. `pacer.py` judges each frame once, before the first network, and writes the verdict into its stamp: `warp`
(every m-th frame is predicted, or the frame would miss its deadline) or `repeat` (nothing moved). Stages pass held
frames on without their networks; the last picture is shown, warped or as it was. A cut is never held.

Lanes. A placement that puts the stages of the loop into several workers makes a lane of those in each (`placement.py`).
A lane calls its stages in the order of `pass_frame` and waits for one link at a time, so lanes that need one another in
the middle of a frame never wait for good.
"""
