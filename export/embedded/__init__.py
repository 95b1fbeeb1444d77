"""Train the embedded bundle: a small latent diffusion model distilled from a feed-forward style network.

`python -m warpfuse.export.embedded --photos DIR --teacher multistyle26.onnx --out DIR` runs all of it:
photographs and stylised plates, autoencoder, UNet, ONNX files and `bundle.json`. See README.md of this folder.
"""
