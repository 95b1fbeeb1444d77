"""Stages around the diffusion network: encode, predict, fuse, decode; prompts, schedules, rows.

Steps. `spacing.py` puts the steps where the checkpoint's own sampler puts them. That one, given a picture, makes the
last int(N strength) of its N steps. A stream batch has K rows at every strength, so here K is given and N = K /
strength, whole or not. Where N is whole the picture is the diffusers pipeline's, within 1e-3 (found: 1e-5), for every
family, with prompts, negative prompts and guidance: `tests/export/test_diffusers_pictures.py`. The embedded bundle
spaces its steps evenly.

Fusion. The reference is the last styled picture, warped onto the present along the optical flow, and encoded. It is
warped again with every frame, so it must not go soft: sampling is bilinear, and the second differences that this takes
are given back (`formulas/backward_warp.py`). Latents are not warped: a latent cell holds 8 x 8 pixels and is not
shift-equivariant. `stages.fuse.reference` chooses: `picture` (the above, the default), `latent` (the last x0, warped as
a latent), `output` (the picture at the entry, and blended over the decoded picture at the exit).
`bench/bench_consistency.py` compares them.

Drift. What is fed back is styled again with every frame. `moment_lock.py` ties it to statistics that are not its own.
At the entry the network is shown its own strokes over the source's local colours, with no more contrast than the source
has. At the exit each channel of the fused latent is given the contrast that the frame's own prediction has where the
past is trusted, because strokes that do not quite meet lose contrast when they are blended. The gain moves slowly and
starts anew on a cut, at low coverage, or when it drifts off. Without both, the texture of a still road grew by a fifth
and its colours moved by a tenth in 600 frames.

Rows. A frame in the sampler is a `Row` (`rows.py`): latent, place in its plan of calls, prompt, reference, motion, what
its solver remembers. `stream_batch.py` makes one network call over any rows and moves each of them one call on. A frame
alone is a row moved K times. A stream batch (`stages.predict.stream`; Kodaira et al. 2023) holds the rows of the last K
frames and moves all of them with each frame that arrives. Both give the same pictures to the bit: a test for every
solver. Rows of several streams can share the call; nothing of a row is read but by itself and the next frame of its
stream. `predict` then keeps K - 1 frames back (`stage.Delaying`): its first K - 1 calls deliver nothing, `flush` the
last ones. Counts of frames stay equal on every link. The last row meets the picture before it, like a frame alone; the
entry row the newest finished picture, K frames back, along the composed flow (`motion/compose_motion.py`); rows
between, if asked for, x0 of the frame before at their own level, warped as a latent or through decoder and encoder.

Attention (`attention.py`). The UNet of a checkpoint exported with `--attention` also sees tokens of earlier frames in
its self-attention. They are inputs and outputs, not state of the network: each row has its own, several streams share a
call, and what a row left is read by the next frame of its stream at the same call, as its x0 is. A weight is a
multiplicity, log(m) added to the logit: 0 is the network without, by ONNX Runtime in single precision to the bit. Kept
are the normed tokens in front of to_k and to_v, half of what keys and values are. Attention knows no places, so tokens
of the frame before are pulled along the flow only to line up with its trust, which weighs them. Whether a frame begins
a shot is a number on the device, and nobody waits for it.

Controls (`hint.py`). ControlNets are inside the UNet's file, so that their residuals never leave it. What does not know
the noise level is a network of its own that runs once a frame: the hint encoder of a ControlNet, the whole of a
T2I-Adapter. Hints belong to a row like its latent, scales to its schedule, since a window closes them at some of its
levels. A stream without controls in a shared call is fed zeros at scale 0.

Rerender-A-Video (Yang et al. 2023). Between steps several references are fused in one after the other
(`FuseSettings.windows`), after AdaIN (`adain.py`): of the frame before, or of the anchor, the first frame of the shot,
whose x0 after every call is kept (`anchor_past.py`) and pulled along a flow of its own (`motion/anchor.py`). A noise
that comes with two of them is correlated with what is there already, so its correlation is followed (`FusedNoise`) and
the level stays exact. A frame takes the anchor's place by trusting nothing of it: that travels with the trust, and no
stage has to ask another. `tests/stages/diffusion/test_rerender.py` has the paper's loop.

A keyframe (`motion/keyframe.py`, `apply_keyframe.py`, `keyframe_past.py`) is a picture that somebody made of a frame.
It travels with the motion to that frame, so whoever gets the motion knows whether the anchor is a keyframe. It is laid
over the decoded picture, in front of what is fed back: fusion into x0 would go through the autoencoder, which loses
more than a 255th. Its latent stands for the anchor's x0 after every call. Its tokens come from a pass of the network at
each level.

Guidance (`guidance.py`) acts on the pair (x0, n). Residual guidance carries no stock noise: the noise under which the
assumed picture would be clean, (x - alpha p) / sigma, is what the recursion of its paper arrives at, needs no state,
and stays right when something was fused in.

Prompts. `prompts.py` turns styles or a text into the tensors of a network; `denoise.py` feeds the UNet what it has
inputs for and fills the batch it was built for. A text is read by `prompt_grammar.py`, which is pure and knows no
error, laid out in chunks of tokens (`prompt_chunks.py`) and weighted as ComfyUI does. What is left out or taken as text
is a note, said once by the process that checks new settings. The text network takes one chunk, the UNet as many as the
bundle was exported for: attention over a context that is repeated is that over the context, so shorter prompts are.
Scales of live LoRAs (`loras.py`) and style images (`style_images.py`, `image_tokens.py`) are conditioning of a row like
its prompt: nothing behind `prompts.py` knows of them.

Printed styles. A bundle of styles may draw lines: a network gives their cover at full size, each style names its ink,
and a table the colours its paint is printed in. What the decoder gives is then the paint. `composite.py` puts inks and
lines over it (`palette.py`). What is warped for the next frame is paint and cover, each fused by itself: lines that
came back with the picture would be drawn on lines.
"""
