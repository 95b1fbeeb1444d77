"""Training the embedded bundle, a small latent diffusion model that learns from procedural painters.

`python -m warpfuse.export.embedded --photos DIR --out DIR` does everything: photographs and painted plates,
autoencoder, UNet, line block, ONNX files and `bundle.json`. See README.md in this folder.
"""
