"""Make bundles: networks and their description, written to disk for the stages to run.

What an exporter writes is run against torch float32 before it is accepted, each file on the backend it is for
(`network_files.py`): half precision of torch on a CPU with its products in single precision, bfloat16 of ONNX on a
graph that rounds where the file has bfloat16, for neither runs there as it is. `export --to` puts more beside the ONNX
files: a `.pt2` of each network for torch, which is among the bundle's `files`, and TensorRT plans in `plans/`
(`plans.py`), which are not: each has its description with its sha256, under the same key as in the user's cache. An
export on the machine with the card puts its plans into that cache too.

A LoRA is merged, as are its relatives (`diffusion/lora/forms.py` has their formulas), or stays live (`lora/live.py`): a
branch beside each layer it changes, and an input `lora_scale` [rows, LoRAs] of the UNet, and of the text encoder where
it changes that. A scale belongs to a row, not to the call: rows of a stream batch are of different frames, and a change
holds from one frame on. At 0 the network is the one without, to the bit in single precision: `live_graph` adds a branch
behind the residual sum of its layer, which runtimes compute with the layer and round as a whole. Halves of a LoRA are
balanced by powers of two, so that half precision holds what passes between them.
"""
