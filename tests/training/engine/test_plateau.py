"""Whether another round is worth its hours, in cases worked by hand."""

import numpy as np
import pytest

from tests.training.engine.judged import detections, judge, random_tiles
from training.engine.plateau import Measured, Verdict, gain_interval, plateau, signed


def measured(number, value, interval=None, *, resampled=(), truth="test a", hours=0.0):
    return Measured(number, value, interval, resampled, truth, hours)


def three(*gains, value=0.5, hours=(1.0, 2.5, 6.2)):
    """Rounds whose paired differences between the first and the last are `gains`."""
    old = [value] * len(gains)
    new = [value + gain for gain in gains]
    return [
        measured(1, value, resampled=old, hours=hours[0]),
        measured(2, 0.1, hours=hours[1]),
        measured(3, float(np.mean(new)), resampled=new, hours=hours[2]),
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_rounds_are_too_few(count):
    found = plateau([measured(number, 0.1 * number) for number in range(1, count + 1)])
    assert (found.verdict, found.gain, found.interval) == (Verdict.TOO_FEW, None, None)
    assert "three" in found.text or "3 evaluated" in found.text


def test_the_interval_of_pairs_is_of_their_differences():
    # 41 differences 0.00, 0.01 ... 0.40: the 2.5 and 97.5 percentiles are the second and the last but one.
    rounds = three(*(number / 100 for number in range(41)))
    interval, paired = gain_interval(rounds[0], rounds[2])
    assert paired
    assert interval == pytest.approx((0.01, 0.39))


def test_pairs_in_which_one_is_not_known_are_left_out():
    before = measured(1, 0.5, resampled=[0.5, None, 0.5, 0.9])
    last = measured(3, 0.6, resampled=[0.6, 0.6, 0.6, None])
    assert gain_interval(before, last) == (pytest.approx((0.1, 0.1)), True)


def test_intervals_alone_are_combined_as_if_independent():
    # down = sqrt(0.03^2 + 0.04^2) = 0.05, up = sqrt(0.06^2 + 0.08^2) = 0.10
    before, last = measured(1, 0.5, (0.42, 0.54)), measured(3, 0.6, (0.57, 0.66))
    interval, paired = gain_interval(before, last)
    assert not paired
    assert interval == pytest.approx((0.05, 0.20))


def test_resamplings_of_another_number_are_no_pairs():
    before = measured(1, 0.5, (0.42, 0.54), resampled=[0.5, 0.5])
    last = measured(3, 0.6, (0.57, 0.66), resampled=[0.6])
    assert gain_interval(before, last) == (pytest.approx((0.05, 0.20)), False)


@pytest.mark.parametrize(
    ("gains", "verdict", "words"),
    [
        ((0.02, 0.06, 0.10), Verdict.RISING, "gained 0.060 mAP@0.5 (95% interval 0.022 to 0.098) for 5.2 expert-hours"),
        ((-0.01, 0.01, 0.03), Verdict.FLAT, "no gain is proven. Another round may not be worth its hours"),
        ((-0.1, 0.0, 0.1), Verdict.UNDECIDED, "up to 0.095 is not ruled out"),
        ((-0.10, -0.06, -0.02), Verdict.FALLING, "lost 0.060 mAP@0.5 (95% interval −0.098 to −0.022)"),
    ],
)
def test_the_verdict_follows_the_interval(gains, verdict, words):
    found = plateau(three(*gains))
    assert found.verdict == verdict
    assert words in found.text
    assert found.paired
    assert found.hours == pytest.approx(5.2)


def test_a_gain_without_any_interval_is_not_decided():
    found = plateau([measured(1, 0.5), measured(2, 0.5), measured(3, 0.7)])
    assert (found.verdict, found.interval) == (Verdict.UNDECIDED, None)
    assert "no interval is known" in found.text


def test_other_tiles_or_boxes_cannot_be_compared():
    found = plateau([measured(3, 0.5, truth="test a"), measured(4, 0.5), measured(6, 0.7, truth="test b")])
    assert found.verdict == Verdict.NOT_ALIKE
    assert "Rounds 3 and 6" in found.text
    assert found.gain is None


def test_only_the_last_round_and_the_one_two_before_count():
    rounds = three(0.02, 0.03, 0.04)
    assert plateau([measured(0, 0.99, truth="other"), *rounds]).gain == plateau(rounds).gain


def test_what_rounds_to_zero_has_no_sign():
    assert [signed(value) for value in (0.012, -0.012, -0.0001, 0.0)] == ["0.012", "−0.012", "0.000", "0.000"]


def of(figures, number):
    return measured(number, figures.map50, figures.map50_interval, resampled=figures.map50_resampled)


def test_the_same_detector_twice_gains_exactly_nothing():
    truths, found = random_tiles(3)
    one = of(judge(truths, found, bootstrap=50), 1)
    assert gain_interval(one, one) == ((0.0, 0.0), True)


def test_pairs_tell_more_than_two_intervals():
    """A detector that finds what the other finds, and a little more, is better on every resampling."""
    truths, found = random_tiles(3)
    more = []
    for truth, one in zip(truths, found, strict=True):
        rows = np.column_stack([one.class_ids, one.boxes, one.scores])
        more.append(detections(np.concatenate([rows, np.column_stack([truth[:1], np.ones(len(truth[:1]))])])))
    before, last = (of(judge(truths, some, bootstrap=100), number) for number, some in enumerate((found, more)))
    paired, _ = gain_interval(before, last)
    apart, _ = gain_interval(
        measured(1, before.value, before.interval),
        measured(2, last.value, last.interval),
    )
    assert paired[1] - paired[0] < 0.7 * (apart[1] - apart[0])
