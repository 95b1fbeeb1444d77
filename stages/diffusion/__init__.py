"""Stages around the diffusion network: encode, predict, fuse, decode; prompts, schedules, rows.

Steps. `spacing.py` chooses the timesteps as the checkpoint's own sampler does. That sampler, started from a picture,
makes the last int(N strength) of its N steps. A stream batch has K rows at every strength, so here K is given and N =
K / strength, which need not be an integer. If it is one, the picture equals that of the diffusers pipeline within 1e-3
(measured: 1e-5), for every model family, with prompts, negative prompts and guidance
(`tests/export/test_diffusers_pictures.py`). The embedded bundle spaces its steps evenly.

Fusion. The reference is the last styled picture, warped onto the present along the optical flow, and encoded. It is
warped again with every frame, so the warp must not blur: it samples bilinearly, and the second differences that this
removes are added back (`formulas/backward_warp.py`). Latents are not warped by default: a latent cell is 8 x 8 pixels
and not shift-equivariant. `stages.fuse.reference` chooses: `picture` (as above, the default), `latent` (the last x0,
warped as a latent), `output` (the picture at the entry, and blended with the decoded picture at the exit).
`bench/bench_consistency.py` compares them.

Drift. The fed-back picture is styled again with every frame, so errors would accumulate. `moment_lock.py` ties its
statistics to others. At the entry the reference keeps its strokes but gets the local colours of the source, and at most
the contrast of the source. At the exit each channel of the fused latent gets the contrast of the frame's own prediction
where the past is trusted, since blending strokes that do not coincide reduces contrast. That gain changes slowly. It
restarts on a cut, at low coverage, or when it is far from the present frame's. Without both, the texture of a still
road grew by a fifth and its colours changed by a tenth in 600 frames.

Rows. A frame in the sampler is a `Row` (`rows.py`): latent, number of the next call, prompt, reference, motion, memory
of the solver. `stream_batch.py` makes one network call for any set of rows and advances each by one call. A frame
sampled by itself is a row that is advanced K times. A stream batch (`stages.predict.stream`; Kodaira et al. 2023) holds
the rows of the last K frames and advances all of them with each new frame. Both give the same pictures bit for bit,
tested for every solver. Rows of several streams can share a call, since a row is read only by itself and the next frame
of its stream. With a stream batch, `predict` is K - 1 frames late (`stage.Delaying`): its first K - 1 calls return
nothing, and `flush` returns the last frames. So every link carries the same number of frames. The last row is fused
with the picture of the frame before, as without a stream batch. The entry row is fused with the newest finished
picture, K frames old, along the composed flow (`motion/compose_motion.py`). Rows between are fused, if configured, with
x0 of the frame before at the same level, warped as a latent or by way of decoder and encoder.

Attention (`attention.py`). The UNet of a checkpoint exported with `--attention` also attends to tokens of earlier
frames in its self-attention. The tokens are inputs and outputs of the network, not its state. So each row has its own,
and several streams can share a call. The tokens of a row are read by the next frame of its stream at the same call,
like x0. A weight m is a multiplicity: log(m) is added to the logit. At weight 0 the result is that of the network
without attention, in ONNX Runtime at single precision bit for bit. The stored tokens are the normalised ones before
to_k and to_v, half the size of keys and values. Attention ignores positions, so tokens of the frame before are warped
only to align them with their weight, the trust of the flow. Whether a frame begins a shot is decided by a number on the
device, for which the host does not wait.

The deep part (`deep.py`). The UNet of a checkpoint exported with `--cache-deep` is split at a skip connection. Its deep
feature is an output of the whole UNet and an input of its shallow part, so it belongs to the rows as tokens do. It is
kept for each call and pass, and warped along the flow. Which of the two networks runs is decided on the host.

Controls (`hint.py`). ControlNets are inside the UNet's file, so that their residuals stay inside it. Parts that do not
depend on the noise level are separate networks that run once a frame: the hint encoder of a ControlNet, a T2I-Adapter
as a whole. Hints belong to the row, like its latent. Scales belong to its schedule, since they are 0 at levels outside
the control's window. In a shared call, a stream without controls is fed zeros at scale 0.

Rerender-A-Video (Yang et al. 2023). Between steps, after AdaIN (`adain.py`), several references can be fused one after
the other (`FuseSettings.windows`). They are of the frame before, or of the anchor, the first frame of the shot. The
anchor's x0 is kept after every call (`anchor_past.py`) and warped along a flow of its own (`motion/anchor.py`). The
noise of a second reference is correlated with the noise fused in already. `FusedNoise` keeps track of the correlation,
so that the level stays exact. A frame whose trust of the anchor is 0 everywhere becomes the anchor. The trust travels
with the motion, so stages need not ask each other. `tests/stages/diffusion/test_rerender.py` has the paper's loop.

A keyframe (`motion/keyframe.py`, `apply_keyframe.py`, `keyframe_past.py`) is a frame painted by the user. It travels
with the motion to its frame, so every stage that gets the motion knows whether the anchor is a keyframe. It is laid
over the decoded picture, before that is fed back. Fusion into x0 would send it through the autoencoder, which loses
more than 1/255. In the sampler its latent takes the place of the anchor's x0 after every call. Its tokens are computed
by one pass of the network at each level.

Guidance (`guidance.py`) acts on the pair (x0, n). Residual guidance stores no stock noise. The noise under which the
assumed picture p would be clean, (x - alpha p) / sigma, is what the recursion of the paper computes. It needs no state
and stays right after fusion.

Prompts. `prompts.py` turns styles or a text into input tensors of the networks. `denoise.py` feeds the UNet those for
which it has inputs, and pads the batch to the size for which it was built. A text is parsed by `prompt_grammar.py`,
which is pure and has no errors, divided into chunks of tokens (`prompt_chunks.py`) and weighted as in ComfyUI. Parts
that are left out or taken literally are notes, printed once by the process that checks new settings. The text network
takes one chunk. The UNet takes as many as the bundle was exported for. Shorter prompts are repeated, since attention
over a repeated context equals that over the context. Scales of live LoRAs (`loras.py`) and style images
(`style_images.py`, `image_tokens.py`) are conditioning of a row, like its prompt. Only `prompts.py` knows of them.

Printed styles. A bundle of styles may draw lines. A network computes their cover at full size, each style has an ink,
and a table gives the colours in which its paint is printed. The output of the decoder is then the paint.
`composite.py` applies inks and lines to it (`palette.py`). Paint and cover are warped for the next frame and fused
separately. If the finished picture were fed back, lines would be drawn on lines. Both are cored: changes up to a limit
are fused once more, since where a table is steep they would change the ink of an area.
"""
