"""Exporting bundles: networks and their description, written to disk for the stages.

Every written file is compared with torch in float32 before it is accepted, on the backend that it is for
(`network_files.py`). Two formats cannot run on a CPU directly. Half precision in torch is run with its products in
single precision. Bfloat16 in ONNX is run as a graph that rounds wherever the file has bfloat16.

A UNet with 8-bit products (`diffusion/quantized.py`) is far from torch by a rounding, so pictures decide: their PSNR on
frames that it was not calibrated on.

`export --to` adds files beside the ONNX files. A `.pt2` of each network for torch is listed in the bundle's `files`.
TensorRT plans in `plans/` (`plans.py`) are not: each has a description with its sha256, under the same key as in the
user's cache. An export on a machine with the card also puts its plans into that cache.

A LoRA, or one of its relatives (`diffusion/lora/forms.py` has their formulas), is merged or stays live
(`lora/live.py`). A live LoRA is a branch beside each layer that it changes, with an input `lora_scale` [rows, LoRAs] of
the UNet, and of the text encoder if it changes that. Each row has its own scale, since rows of a stream batch are of
different frames, and a change of the scale takes effect at one frame. At scale 0 the network equals the one without the
LoRA, in single precision bit for bit. For this, `live_graph` adds the branch after the residual sum of its layer, which
runtimes fuse with the layer and round as a whole. The two factors of a LoRA are balanced by powers of two, so that
half precision can represent the values between them.
"""
