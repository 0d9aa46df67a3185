"""A lane that stays idle is nudged again soon, and then ever less often."""

from uuid import UUID

from postroom.worker.pacing import Pacing

LANE, OTHER = UUID(int=1), UUID(int=2)
MAIL, ANOTHER = UUID(int=3), UUID(int=4)


def _nudged_at(pacing: Pacing, seconds: range, first: UUID = MAIL) -> list[int]:
    return [second for second in seconds if LANE in pacing.due({LANE: first}, float(second))]


def test_a_lost_nudge_is_made_again_within_seconds_and_they_do_not_pile_up() -> None:
    assert _nudged_at(Pacing(), range(40)) == [0, 1, 3, 7, 15, 23, 31, 39]


def test_a_lane_that_was_served_meanwhile_begins_anew() -> None:
    pacing = Pacing()
    assert _nudged_at(pacing, range(6)) == [0, 1, 3]
    assert pacing.due({OTHER: MAIL}, 6.0) == [OTHER]
    assert _nudged_at(pacing, range(7, 12)) == [7, 8, 10]


def test_a_lane_whose_next_mail_is_another_begins_anew() -> None:
    pacing = Pacing()
    assert _nudged_at(pacing, range(6)) == [0, 1, 3]
    assert _nudged_at(pacing, range(6, 11), ANOTHER) == [6, 7, 9]
