import pytest

from rap_edge.runtime.serve.admission import Admission, KioskFullError, places_for


@pytest.mark.parametrize(("rtf", "places"), [(0.01, 64), (0.1, 8), (0.3, 2), (0.41, 1), (0.9, 1), (3.0, 1)])
def test_places_leave_a_fifth_of_the_machine(rtf: float, places: int) -> None:
    assert places_for(rtf) == places


def test_whoever_has_a_place_by_a_ticket_is_known_until_they_leave() -> None:
    admission = Admission(2)
    place, other = admission.take("one"), admission.take()
    assert admission.tickets == {"one"}
    place.release()
    place.release()
    other.release()
    assert admission.tickets == set()


def test_a_place_is_given_back_once() -> None:
    admission = Admission(1)
    place = admission.take()
    with pytest.raises(KioskFullError, match="one visitor"):
        admission.take()
    place.release()
    place.release()
    assert admission.taken == 0
    admission.take()
