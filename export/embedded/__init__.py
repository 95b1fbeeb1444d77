"""Train the embedded bundle: a small latent diffusion model that learns from procedural painters.

`python -m warpfuse.export.embedded --photos DIR --out DIR` runs all of it: photographs and painted plates, autoencoder,
UNet, line block, ONNX files and `bundle.json`. See README.md of this folder.
"""
