import numpy as np

from raystp.slides.coordinates import Area
from raystp.slides.tissue.overview import TILE_COLOUR, TISSUE_COLOUR, overview


def test_overview_shows_the_outline_of_tissue_and_of_tiles_in_the_thumbnails_scale() -> None:
    thumbnail = np.full((40, 60, 3), 250, np.uint8)
    mask = np.zeros((40, 60), np.bool_)
    mask[10:30, 5:25] = True
    image = np.asarray(overview(thumbnail, mask, np.array([[400.0, 100.0, 100.0]]), area=Area(0, 0, 600, 400)))
    assert image.shape == (40, 60, 3)
    assert [image[at].tolist() for at in ((10, 5), (29, 24), (20, 5))] == [list(TISSUE_COLOUR)] * 3
    assert image[20, 15].tolist() == [250] * 3
    assert [image[at].tolist() for at in ((10, 40), (20, 50), (15, 40))] == [list(TILE_COLOUR)] * 3
    assert image[15, 45].tolist() == [250] * 3
    assert (thumbnail == 250).all()
