"""main.py in float64, where only more than rounding differs: python -m tests.in_float64 [flags]."""

import sys

import torch

import main
from learning import setup
from learning.augment import Normalise

single, normalised, build = torch.Tensor.float, Normalise.__call__, setup.build_network

# Where the program asks for fp32 or better. Pixels, which are mixed image by image, stay what they are.
torch.Tensor.float = lambda values: values.double() if values.is_floating_point() else single(values)
Normalise.__call__ = lambda self, images: normalised(self, images).double()
setup.build_network = lambda *args, **flags: build(*args, **flags).double()

if __name__ == "__main__":
    sys.exit(main.main())
