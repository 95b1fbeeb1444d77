"""A small bundle: the contents of its files, and its description."""

FILES = {"encoder.onnx": b"e" * 100, "unet.onnx": b"u" * 100, "decoder.onnx": b"d" * 100}
ABOUT = {
    "name": "small",
    "kind": "latent-diffusion",
    "prediction": "sample",
    "levels": {"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "train_timesteps": 1000},
    "latent": {"channels": 4, "downscale": 8, "scale": 1.0},
    "takes_source": True,
    "sizes": {"multiple": 8, "minimum": 64, "default_long_side": 512},
    "default_style": "ink",
    "styles": {"ink": {"vector": [1.0, 0.0], "about": "black on white"}, "oil": {"vector": [0.0, 1.0]}},
    "networks": {"encoder": "encoder.onnx", "unet": "unet.onnx", "decoder": "decoder.onnx"},
    "licence": "Apache-2.0",
    "source": "made by a test",
}
