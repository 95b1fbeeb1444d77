"""Planning a run: configuration, stages, lanes, links, and the worker of each stage. Planning opens nothing.

Settings have version numbers (`setting_versions.py`). The source stamps each frame with the newest version, and a stage
adopts a version with the first frame that carries it. So a change takes effect in all stages at the same frame.

Held frames. `pacer.py` judges each frame once, before the first network, and writes the verdict into its stamp. `warp`:
the last picture is shown, warped, because only every m-th frame is predicted or the frame would miss its deadline.
`repeat`: the last picture is shown again, because nothing moved. Stages pass held frames on without running their
networks. A scene cut is never held.

Lanes. If a placement spreads the stages of the loop over several workers, the stages in each worker form a lane
(`placement.py`). A lane calls its stages in the order of `pass_frame` and waits for one link at a time. Therefore lanes
that need each other's values in the middle of a frame cannot deadlock.
"""
