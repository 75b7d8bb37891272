from lb.request import SurfaceName
from lb.surfaces import SURFACES


def test_every_surface_has_an_object() -> None:
    assert set(SURFACES) == set(SurfaceName)
