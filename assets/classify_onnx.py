"""Classify image files with an exported network: python classify_onnx.py network.onnx IMAGE [IMAGE ...]."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
size = about["image_size"]
for path in sys.argv[2:]:
    with Image.open(path) as file:
        file.draft("RGB", (2 * size, 2 * size))  # decode a large JPEG at a fraction of its size
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16"):  # of 16 bits the upper 8
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    assert image.mode not in ("I", "F"), f"{path} has levels of 32 bits; save it with 8 or 16"
    image = image.convert("RGB")
    resize = ImageOps.fit if about["crop"] else Image.Image.resize  # the middle square, or squeezed
    pixels = np.asarray(resize(image, (size, size), Image.Resampling.BILINEAR))
    probabilities = session.run(["probabilities"], {"images": pixels[None]})[0][0]
    print(path, about["classes"][probabilities.argmax()], f"{probabilities.max():.6f}")
