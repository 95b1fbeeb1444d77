"""The tiny autoencoder: its size, its round trip, and files that compute what the networks do."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch

from warpfuse.engine.bundle import load_autoencoder_bundle
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.taef2 import TaefDecoder, TaefEncoder, export_taef2, load_decoder, load_encoder

PARAMETERS = {TaefEncoder: 1_338_528, TaefDecoder: 1_338_499}


def seeded(kind):
    torch.manual_seed(2)
    return kind().half().float().eval()  # weights that half precision holds, as the published ones


@pytest.mark.parametrize("kind", [TaefEncoder, TaefDecoder])
def test_it_has_the_published_number_of_parameters(kind):
    assert sum(parameter.numel() for parameter in kind().parameters()) == PARAMETERS[kind]


def test_the_files_give_what_the_networks_do(tmp_path):
    encoder, decoder = seeded(TaefEncoder), seeded(TaefDecoder)
    bundle = load_autoencoder_bundle(str(export_taef2(tmp_path / "tiny", encoder, decoder, (48, 40)).folder))
    assert (bundle.about.size, bundle.about.channels, bundle.about.downscale) == ((48, 40), 32, 8)
    rgb = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        latent = encoder(rgb)
        back = decoder(latent)
    (found,) = ort.InferenceSession(bundle.network("encoder")).run(["latent"], {"rgb": rgb.numpy()})
    assert found.shape == (1, 32, 5, 6)
    assert np.abs(found - latent.numpy()).max() < 1e-4
    assert np.abs(found - encoder(rgb.flip(3)).detach().numpy()).max() > 1e-2  # the control: another picture
    (shown,) = ort.InferenceSession(bundle.network("decoder")).run(["rgb"], {"latent": latent.numpy()})
    assert np.abs(shown - back.numpy()).max() < 1e-4
    assert shown.shape == (1, 3, 40, 48) and shown.min() >= 0 and shown.max() <= 1


def test_weights_that_do_not_fit_half_precision_are_noticed(tmp_path):
    """The files hold halves: networks of finer weights would not be what is written."""
    encoder = seeded(TaefEncoder)
    with torch.no_grad():
        encoder[-1].weight.mul_(1e3 / 3)
    with pytest.raises(ExportError, match=r"encoder\.onnx: latent is off"):
        export_taef2(tmp_path / "tiny", encoder, seeded(TaefDecoder), (48, 40))
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_no_multiple_of_8_is_refused(tmp_path):
    with pytest.raises(ExportError, match="multiples of 8"):
        export_taef2(tmp_path / "tiny", seeded(TaefEncoder), seeded(TaefDecoder), (50, 40))


def test_the_published_weights_keep_photographs(data):
    weights = data / "weights"
    encoder, decoder = load_encoder(weights / "taef2_encoder.pth"), load_decoder(weights / "taef2_decoder.pth")
    figures, blind = [], []
    for number in (3, 7, 12, 15, 20, 23):
        picture = cv2.imread(str(data / "photos" / f"kodak_kodim{number:02d}.jpg"))[..., ::-1]
        rgb = torch.from_numpy(picture[:256, :384].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            latent = encoder(rgb)
            figures.append(psnr(decoder(latent), rgb))
            blind.append(psnr(decoder(latent.roll(1, dims=1)), rgb))  # the control: channels exchanged
    assert sum(figures) / len(figures) >= 28
    assert sum(blind) / len(blind) < 20


def test_the_weights_of_the_other_half_are_refused(data):
    with pytest.raises(ExportError, match="not those of TaefDecoder"):
        load_decoder(data / "weights" / "taef2_encoder.pth")


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())
