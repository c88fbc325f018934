"""When a change of configuration is kept, when it is lost, and who was to blame."""

from __future__ import annotations

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.trial import Aftermath, Blame, Trial, TrialVerdict

BOTH = frozenset({"gateway", "target"})
GATEWAY = frozenset({"gateway"})
NOBODY = frozenset[str]()


def looks(trial: Trial, *answers: frozenset[str], now: float = 0.0) -> list[TrialVerdict]:
    """What becomes of a change at looks two seconds apart."""
    return [trial.looked(answered, now + timers.TRIAL_LOOK * position) for position, answered in enumerate(answers)]


def test_change_is_kept_once_its_time_is_over_and_everybody_still_answers() -> None:
    verdicts = looks(Trial(BOTH, now=0.0), *[BOTH] * 6)
    assert verdicts == [TrialVerdict.OPEN] * 5 + [TrialVerdict.KEPT]


def test_change_is_lost_at_the_third_look_in_a_row_without_an_answer() -> None:
    trial = Trial(BOTH, now=0.0)
    assert looks(trial, GATEWAY, GATEWAY, GATEWAY) == [TrialVerdict.OPEN, TrialVerdict.OPEN, TrialVerdict.LOST]
    assert trial.lost == {"target"}


def test_one_answer_in_between_starts_the_count_anew() -> None:
    verdicts = looks(Trial(GATEWAY, now=0.0), NOBODY, NOBODY, GATEWAY, NOBODY, NOBODY)
    assert verdicts == [TrialVerdict.OPEN] * 5


def test_silence_at_the_end_of_the_time_is_waited_out() -> None:
    verdicts = looks(Trial(GATEWAY, now=0.0), *[GATEWAY] * 4, NOBODY, NOBODY, NOBODY)
    assert verdicts == [TrialVerdict.OPEN] * 6 + [TrialVerdict.LOST]


def test_somebody_who_answers_now_and_then_is_not_lost() -> None:
    verdicts = looks(Trial(GATEWAY, now=0.0), *[NOBODY, NOBODY, GATEWAY] * 2)
    assert verdicts == [TrialVerdict.OPEN] * 5 + [TrialVerdict.KEPT]


def test_who_answers_only_after_the_change_is_not_missed_later() -> None:
    verdicts = looks(Trial(GATEWAY, now=0.0), BOTH, *[GATEWAY] * 5)
    assert verdicts[-1] is TrialVerdict.KEPT


def test_time_counts_from_when_the_change_was_carried_out_and_silence_from_before() -> None:
    trial = Trial(GATEWAY, now=0.0)
    trial.applied(100.0)
    assert looks(trial, *[GATEWAY] * 6, now=100.0)[-2:] == [TrialVerdict.OPEN, TrialVerdict.KEPT]
    hanging = Trial(GATEWAY, now=0.0)
    assert looks(hanging, NOBODY, NOBODY, NOBODY)[-1] is TrialVerdict.LOST


def test_change_that_joins_answers_for_its_own_silence_only_once_it_is_carried_out() -> None:
    trial = Trial(GATEWAY, now=0.0)
    assert looks(trial, NOBODY, NOBODY) == [TrialVerdict.OPEN, TrialVerdict.OPEN]
    trial.applied(3.0)
    assert looks(trial, NOBODY, NOBODY, NOBODY, now=4.0) == [TrialVerdict.OPEN, TrialVerdict.OPEN, TrialVerdict.LOST]


def test_what_answered_before_a_change_that_joins_is_missed_and_older_silence_still_counts() -> None:
    trial = Trial(GATEWAY, now=0.0)
    looks(trial, NOBODY, NOBODY)
    trial.joined(frozenset({"target"}))
    assert trial.before == BOTH
    assert looks(trial, NOBODY) == [TrialVerdict.LOST]
    assert trial.lost == GATEWAY
    trial.applied(3.0)
    assert looks(trial, GATEWAY, GATEWAY, GATEWAY)[-1] is TrialVerdict.LOST
    assert trial.lost == {"target"}


def test_who_has_been_silent_for_a_whole_trial_is_lost_whatever_joins_it() -> None:
    trial = Trial(GATEWAY, now=0.0)
    verdicts = []
    for look in range(6):
        verdicts += looks(trial, NOBODY)
        trial.applied(timers.TRIAL_LOOK * look)  # another correction, after every look
    assert verdicts == [TrialVerdict.OPEN] * 5 + [TrialVerdict.LOST]
    assert trial.lost == GATEWAY


def test_look_during_which_a_change_joined_counts_against_those_it_asked_and_for_a_whole_trial_only() -> None:
    trial = Trial(GATEWAY, now=0.0)
    for _ in range(5):
        trial.joined(frozenset({"target"}))
        assert trial.overtaken(GATEWAY, NOBODY, 0.0) is TrialVerdict.OPEN
    assert trial.overtaken(GATEWAY, NOBODY, 0.0) is TrialVerdict.LOST
    assert trial.lost == GATEWAY


def test_after_a_reboot_silence_counts_once_the_network_had_its_time() -> None:
    trial = Trial(GATEWAY, now=0.0, patience=40.0)
    assert looks(trial, *[NOBODY] * 20) == [TrialVerdict.OPEN] * 20
    assert looks(trial, NOBODY, NOBODY, NOBODY, now=40.0)[-1] is TrialVerdict.LOST


def test_after_a_reboot_silence_counts_from_who_has_answered_since() -> None:
    trial = Trial(BOTH, now=0.0, patience=40.0)
    verdicts = looks(trial, NOBODY, GATEWAY, NOBODY, NOBODY, NOBODY)
    assert verdicts == [TrialVerdict.OPEN] * 4 + [TrialVerdict.LOST]
    assert trial.lost == GATEWAY


def test_after_a_reboot_a_change_is_not_kept_before_everybody_has_answered() -> None:
    trial = Trial(BOTH, now=0.0, patience=40.0)
    assert looks(trial, *[GATEWAY] * 6, BOTH) == [TrialVerdict.OPEN] * 6 + [TrialVerdict.KEPT]


def test_one_look_after_a_long_stop_is_no_verdict() -> None:
    trial = Trial(GATEWAY, now=0.0)
    assert trial.looked(GATEWAY, 1.0) is TrialVerdict.OPEN
    assert trial.looked(NOBODY, 600.0) is TrialVerdict.OPEN
    assert trial.lost == NOBODY


@pytest.mark.parametrize(
    ("answered", "now", "blame"),
    [
        (BOTH, 2.0, Blame.CHANGE),
        (BOTH, timers.TRIAL, Blame.CHANGE),
        (BOTH, timers.TRIAL + 2.0, Blame.OTHERS),
        (GATEWAY, 2.0, Blame.OPEN),
        (GATEWAY, 600.0, Blame.OPEN),
        (NOBODY, 600.0, Blame.OPEN),
    ],
)
def test_change_is_to_blame_if_all_comes_back_soon_after_it_was_undone(
    answered: frozenset[str], now: float, blame: Blame
) -> None:
    assert Aftermath(BOTH, now=0.0).looked(answered, now) is blame
