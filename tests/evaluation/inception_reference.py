"""Numbers that pytorch-fid's network gives, for random weights and images that anyone can make again.

    python tests/evaluation/inception_reference.py      # needs torch, torchvision and pytorch-fid 0.3

writes inception_reference.json beside this file: the shapes of the network's convolutions, and for three
images every 64th feature, the sum and the norm of all. The tests compare with it and need no such package.
"""

import json
import zlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_suffix(".json")
EVERY = 64
# Made smaller, where antialiasing would show; as it is; enlarged.
IMAGE_SIZES = ((400, 640), (299, 299), (64, 48))


def tensor_shapes(convolutions):
    """Name and shape of every tensor in the weight file, given those of the convolutions [out, in, h, w]."""
    shapes = {}
    for name, shape in convolutions.items():
        shapes[f"{name}.conv.weight"] = tuple(shape)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (shape[0],)
    return shapes | {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


def random_tensor(name, shape):
    """Uniform float32 numbers that depend on the name; NumPy promises RandomState's numbers for all time."""
    low, high = -0.5, 0.5
    if name.endswith(("conv.weight", "fc.weight")):
        high = (6 / np.prod(shape[1:])) ** 0.5  # activations stay of one size from layer to layer
        low = -high
    elif name.endswith(("bn.weight", "bn.running_var")):
        low, high = 0.5, 1.5
    unit = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape)
    return (low + (high - low) * unit).astype(np.float32)


def random_images():
    """uint8 [1, h, w, 3] of each size: noise in cells of 1, 4 and 16 pixels, of three ranges."""
    images = []
    for number, (height, width) in enumerate(IMAGE_SIZES):
        cell, random = 4**number, np.random.RandomState(number)
        noise = random.randint(0, (64, 128, 256)[number], (height // cell + 1, width // cell + 1, 3))
        images.append(noise.repeat(cell, 0).repeat(cell, 1)[None, :height, :width].astype(np.uint8))
    return images


def pytorch_fid_network(save=None):
    """pytorch-fid's network with random weights, and its convolutions; `save` is called with the tensors."""
    import pytorch_fid.inception as module
    import torch

    empty = module._inception_v3(num_classes=1008, aux_logits=False, weights=None).state_dict()
    state = {
        name: value
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(random_tensor(name, tuple(value.shape)))
        for name, value in empty.items()
    }
    if save is not None:
        save(state)
    download, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: state
    try:
        network = module.InceptionV3().eval()
    finally:
        module.load_state_dict_from_url = download
    return network, {
        name.removesuffix(".conv.weight"): tuple(value.shape)
        for name, value in state.items()
        if name.endswith(".conv.weight")
    }


def pytorch_fid_features(network, images):
    """float32 [b, 2048] of uint8 images [b, h, w, 3], as pytorch_fid.fid_score computes them."""
    import torch

    # What torchvision's ToTensor does.
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(torch.float32).div(255)
    with torch.no_grad():
        return network(batch)[0][:, :, 0, 0].numpy()


def summarize(features):
    return {
        "features": [float(f"{value:.8g}") for value in features[::EVERY]],
        "sum": float(f"{features.sum(dtype=np.float64):.8g}"),
        "norm": float(f"{np.linalg.norm(features.astype(np.float64)):.8g}"),
    }


def main():
    network, convolutions = pytorch_fid_network()
    images = [summarize(pytorch_fid_features(network, image)[0]) for image in random_images()]
    shapes = ",\n".join(f"  {json.dumps(name)}: {list(shape)}" for name, shape in convolutions.items())
    numbers = ",\n".join(f"  {json.dumps(image)}" for image in images)
    text = f'{{\n "convolutions": {{\n{shapes}\n }},\n "images": [\n{numbers}\n ]\n}}\n'
    REFERENCE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
