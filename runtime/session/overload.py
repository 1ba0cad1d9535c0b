"""What to do when chunks are late, as pure data: what was observed goes in, a new state and a decision come out.

The rungs are gone down one at a time: fewer denoise steps, then a lower frame rate. Only at the bottom chunks are
dropped, the newest first, so that never more than `Overload.waiting` chunks wait. A rung up is tried after a row of
chunks with room to spare; a try that fails doubles the row that the next one needs, so a machine that is slightly
too slow is not tossed up and down.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import SessionError

_CATCH_UP = 0.005
_LONGEST_PATIENCE = 256


@dataclass(frozen=True)
class Overload:
    """The policy of a live session.

    Attributes:
        budget: seconds that a chunk may take from the moment its sound is complete; None means as long as it plays.
        waiting: chunks that may wait while one is rendered; newer ones are dropped.
        patience: chunks in a row with room to spare before a rung up is tried.
        room: there is room to spare where rendering takes at most this share of the time that a chunk plays.
        failures: chunks in a row that may fail (NaN, or a broken engine) before the session gives up and raises.
    """

    budget: float | None = None
    waiting: int = 1
    patience: int = 8
    room: float = 0.8
    failures: int = 3

    def __post_init__(self) -> None:
        """Refuse what makes no sense; raises `SessionError`."""
        least = {"waiting": 0, "patience": 1, "failures": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise SessionError(f"Overload.{name} is {getattr(self, name)} but must be at least {value}.")
        if not 0.0 < self.room < 1.0 or (self.budget is not None and not 0.0 < self.budget < float("inf")):
            raise SessionError("Overload.room must lie between 0 and 1 and Overload.budget must be positive seconds.")


@dataclass(frozen=True)
class Rung:
    """How much is rendered: denoise steps, and one of every `frame_step` frames."""

    steps: int
    frame_step: int = 1


@dataclass(frozen=True)
class Decision:
    """One decision of the controller.

    Attributes:
        pts: of the chunk that it was made at, or that is dropped, in seconds.
        reason: one clause in English, with the figures that led to it.
        steps, frame_step: what is rendered from now on.
        dropped: this chunk is not rendered.
    """

    pts: float
    reason: str
    steps: int
    frame_step: int
    dropped: bool = False


@dataclass(frozen=True)
class State:
    """What the controller remembers.

    Attributes:
        level: index of the rung, 0 is the best.
        calm: chunks in a row with room to spare.
        patience: calm chunks that the next rung up needs.
        trial: chunks since the last rung up, None once it has held.
        cost: seconds that the next chunk is expected to take.
    """

    level: int
    calm: int
    patience: int
    trial: int | None
    cost: float


def rungs(steps: int) -> tuple[Rung, ...]:
    """From the best rung to the worst: steps halved down to 1, then half the frame rate."""
    found = [Rung(steps)]
    while found[-1].steps > 1:
        found.append(Rung(found[-1].steps // 2))
    return (*found, Rung(1, 2))


def start(policy: Overload) -> State:
    """The state before the first chunk: the best rung."""
    return State(level=0, calm=0, patience=policy.patience, trial=None, cost=0.0)


def due_after(previous: float | None, ready: float, budget: float, chunk_seconds: float) -> float:
    """When a chunk has to be rendered, on any clock in seconds.

    Its budget after its sound was complete, or one chunk after the previous one where the sound came in a burst.
    The latter gains half a percent, because a player that is behind a faster capture clock catches up as well.
    """
    if previous is None:
        return ready + budget
    return max(ready + budget, previous + (1.0 - _CATCH_UP) * chunk_seconds)


def after_chunk(
    policy: Overload,
    ladder: tuple[Rung, ...],
    state: State,
    *,
    pts: float,
    late_by: float,
    render_seconds: float,
    chunk_seconds: float,
) -> tuple[State, Decision | None]:
    """Learn from a rendered chunk.

    Args:
        policy, ladder, state: as made by `start` and `rungs`.
        pts: of the chunk.
        late_by: seconds between when it was rendered and when it had to be; negative is early.
        render_seconds: that it took.
        chunk_seconds: that it plays.
    """
    state = dataclasses.replace(state, cost=render_seconds)
    if late_by > 0.0:
        # A failed try is not repeated soon; lateness long after a try says nothing about it.
        patience = min(2 * state.patience, _LONGEST_PATIENCE) if state.trial is not None else state.patience
        state = dataclasses.replace(state, calm=0, patience=patience, trial=None)
        if state.level == len(ladder) - 1:
            return state, None
        return _move(ladder, state, state.level + 1, pts, f"{late_by:.2f} s late")
    calm = state.calm + 1 if render_seconds <= policy.room * chunk_seconds else 0
    trial = None if state.trial is None else state.trial + 1
    patience = state.patience
    if trial is not None and trial >= patience:
        trial, patience = None, policy.patience
    state = dataclasses.replace(state, calm=calm, trial=trial, patience=patience)
    if state.level == 0 or calm < state.patience:
        return state, None
    state = dataclasses.replace(state, calm=0, trial=0)
    return _move(ladder, state, state.level - 1, pts, f"room to spare for {calm} chunks")


def before_chunk(
    policy: Overload,
    ladder: tuple[Rung, ...],
    state: State,
    *,
    waiting: tuple[float, ...],
    time_left: float,
    chunk_seconds: float,
) -> tuple[State, tuple[Decision, ...]]:
    """Decide which of the waiting chunks are not rendered.

    Args:
        policy, ladder, state: as made by `start` and `rungs`.
        waiting: pts of the chunks whose turn has come, the oldest first.
        time_left: seconds until the oldest one has to be rendered; negative is late.
        chunk_seconds: that a chunk plays.

    Returns:
        The new state and the decisions, in the order in which they were made.
    """
    decisions: list[Decision] = []
    surplus = waiting[1 + policy.waiting :]
    if surplus and state.level < len(ladder) - 1:
        state = dataclasses.replace(state, calm=0, trial=None)
        state, decision = _move(ladder, state, len(ladder) - 1, waiting[0], f"{len(waiting)} chunks wait")
        decisions.append(decision)
    rung = ladder[state.level]
    for pts in reversed(surplus):
        decisions.append(Decision(pts, f"{len(waiting)} chunks wait", rung.steps, rung.frame_step, dropped=True))
    over = state.cost - time_left - chunk_seconds
    if waiting and state.level == len(ladder) - 1 and over >= 0.0:
        reason = f"its sound would be over {over:.2f} s before its picture"
        decisions.append(Decision(waiting[0], reason, rung.steps, rung.frame_step, dropped=True))
        # What was slow once is given another try soon.
        state = dataclasses.replace(state, cost=state.cost / 2)
    return state, tuple(decisions)


def _move(ladder: tuple[Rung, ...], state: State, level: int, pts: float, reason: str) -> tuple[State, Decision]:
    rung = ladder[level]
    return dataclasses.replace(state, level=level), Decision(pts, reason, rung.steps, rung.frame_step)
