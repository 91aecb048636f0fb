"""What a view of a photo is: colourless now and then."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmsearch.data.augmentation_cache import Augmentation, augment


def test_a_view_without_colour_is_grey_and_otherwise_it_is_not() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    for part, grey in ((0.0, False), (1.0, True)):
        view = augment(image, 16, Augmentation(grey=part), np.random.default_rng(2))
        assert (view.min(axis=2) == view.max(axis=2)).all() == grey
