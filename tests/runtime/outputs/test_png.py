import io

import av
import numpy as np

from rap_edge.runtime.outputs.png import encode_png


def test_a_picture_comes_back_from_its_png_as_it_was() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    with av.open(io.BytesIO(encode_png(picture))) as file:
        assert np.array_equal(next(file.decode(video=0)).to_ndarray(format="rgb24"), picture)
