import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distributed_avel.config import DataConfig, SyntheticConfig
from distributed_avel.datasets import feature_source, load_dataset
from distributed_avel.datasets.synthetic import (
    CALIBRATED,
    EASY,
    Revision,
    draw,
    draw_span,
    prototype,
    scripts,
)
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

NOWHERE = Location.at("/nowhere")
SMALL = SyntheticConfig(num_train=70, num_event_free=5, num_val=3, num_test=4)
MANY = SyntheticConfig(num_train=2_000, num_event_free=1, num_val=1, num_test=1)
EVENTS = scripts(MANY, EASY)[:2_000]
AVE_SPANS = Path(__file__).parents[1] / "data" / "ave_span_counts.csv"


def ave_spans() -> Counter[tuple[int, int]]:
    """Count each span in AVE's annotations (4143 rows)."""
    with AVE_SPANS.open() as file:
        rows = csv.DictReader(file)
        return Counter({(int(r["start_s"]), int(r["end_s"])): int(r["count"]) for r in rows})


def shares(spans: Counter[tuple[int, int]]) -> dict[str, float]:
    partial = Counter({span: n for span, n in spans.items() if span != (0, 10)})
    total = sum(partial.values())
    found = {
        "whole": spans[0, 10] / sum(spans.values()),
        "at the start": sum(n for (start, _), n in partial.items() if start == 0) / total,
        "at the end": sum(n for (_, end), n in partial.items() if end == 10) / total,
    }
    for seconds in range(2, 10):
        found[f"{seconds} s"] = (
            sum(n for (start, end), n in partial.items() if end - start == seconds) / total
        )
    return found


def test_spans_are_distributed_as_in_ave():
    rng = np.random.default_rng(0)
    drawn = shares(Counter(draw_span(rng) for _ in range(20_000)))

    assert drawn == pytest.approx(shares(ave_spans()), abs=0.025)


def test_exactly_the_segments_of_an_event_are_audible_and_visible():
    for script in EVENTS:
        both = [t for t in range(10) if script.seen[t] == script.heard[t] == script.label]
        assert both == list(range(script.start, script.end))


def test_background_segments_are_audio_only_visual_only_or_empty():
    kinds: Counter[tuple[bool, bool]] = Counter()
    for script in EVENTS:
        for t in set(range(10)) - set(range(script.start, script.end)):
            kinds[script.seen[t] == script.label, script.heard[t] == script.label] += 1
    total = sum(kinds.values())

    assert kinds[True, True] == 0
    assert kinds[True, False] / total == pytest.approx(0.2, abs=0.03)
    assert kinds[False, True] / total == pytest.approx(0.2, abs=0.03)


def test_event_free_videos_have_one_visual_and_another_audio_class_throughout():
    free = [script for script in scripts(SMALL, EASY) if script.label is None]

    assert len(free) == 5
    assert {script.split for script in free} == {"train"}
    for script in free:
        assert len(set(script.seen)) == len(set(script.heard)) == 1
        assert script.seen[0] != script.heard[0]
        assert None not in (script.seen[0], script.heard[0])


def test_only_videos_with_an_event_have_its_context_in_the_features():
    def likeness(script, role, features_TD):
        other = (script.label if script.label is not None else script.seen[0]) % 28
        mean_D = prototype(0, role, other)
        return float((features_TD @ mean_D).mean() / (mean_D @ mean_D))

    with_event, without = [], []
    for script in [*EVENTS[:200], *scripts(SyntheticConfig(num_event_free=200), EASY)[-200:]]:
        audio_TD, _ = draw(script, 0, EASY)
        found = likeness(script, "context heard", audio_TD)
        (with_event if script.label is not None else without).append(found)

    assert np.mean(with_event) == pytest.approx(0.5, abs=0.1)
    assert np.mean(without) == pytest.approx(0.0, abs=0.1)


def test_adjacent_segments_share_half_of_their_noise():
    script = EVENTS[[s.start == 0 and s.end == 10 for s in EVENTS].index(True)]
    _, visual_TRD = draw(script, 0, EASY)
    noise_TRD = visual_TRD.astype(np.float64) - visual_TRD.astype(np.float64).mean(axis=0)
    lag_0 = (noise_TRD**2).mean()
    lag_1 = (noise_TRD[1:] * noise_TRD[:-1]).mean()

    # The mean is estimated from ten values, so both are lower than 0.09 and 0.5 by its variance.
    mean_variance = 0.09 * (10 + 2 * sum((10 - k) * 0.5**k for k in range(1, 10))) / 100
    assert lag_0 == pytest.approx(0.09 - mean_variance, rel=0.08)
    assert lag_1 > 0.2 * lag_0


def test_the_instance_deviation_only_moves_a_video_away_from_its_prototypes():
    script = EVENTS[0]
    none, one, two = (
        draw(script, 0, Revision(number=1, instance_deviation=deviation))[0]
        for deviation in (0.0, 1.0, 2.0)
    )

    np.testing.assert_allclose(two - one, one - none, atol=1e-5)
    context_D = 0.5 * prototype(0, "context heard", EVENTS[0].label)
    prototype_D = context_D + prototype(0, "heard", EVENTS[0].label)
    segment = EVENTS[0].start
    assert (none[segment] - prototype_D).std() == pytest.approx(0.3, abs=0.1)  # only noise
    # Context (half as strong) and event each have their own instance deviation.
    assert (one - none)[segment].std() == pytest.approx(np.sqrt(1 + 0.25), rel=0.35)


def test_revision_1_is_unchanged():
    """The expected values were recorded before the second revision existed."""
    script = scripts(SyntheticConfig(), EASY)[0]
    audio_TD, visual_TRD = draw(script, 0, EASY)

    assert script.video_id == "f1s0_train_0000"
    assert audio_TD[0, :3] == pytest.approx([-0.402367, -0.841373, 0.092623], abs=1e-6)
    assert visual_TRD[9, 8, :3] == pytest.approx([1.4658, 0.0835, -1.0166], abs=1e-3)


def test_the_two_revisions_share_no_video():
    easy, calibrated = (
        load_dataset(DataConfig(dataset=name, synthetic=SMALL), NOWHERE)
        for name in ("synthetic_easy", "synthetic")
    )

    assert (easy.name, calibrated.name) == ("synthetic_easy", "synthetic")
    assert easy.classes == calibrated.classes
    assert not {v.video_id for v in easy.videos} & {v.video_id for v in calibrated.videos}
    assert EASY.instance_deviation < CALIBRATED.instance_deviation


@pytest.mark.parametrize("name", ["synthetic_easy", "synthetic"])
def test_features_are_read_in_small_chunks_and_cover_all_videos(name):
    config = DataConfig(dataset=name, synthetic=SMALL)
    source = feature_source(name)
    assert source is not None
    chunks = list(source.read(config, NOWHERE))

    assert [len(chunk.video_ids) for chunk in chunks] == [64, 18]
    assert chunks[0].audio_VTD.shape == (64, 10, 32)
    assert chunks[0].visual_VTRD.shape == (64, 10, 9, 64)
    known = {video.video_id for video in load_dataset(config, NOWHERE).videos}
    assert {video_id for chunk in chunks for video_id in chunk.video_ids} == known


def test_a_video_does_not_depend_on_the_number_of_videos():
    few = {script.video_id: script for script in scripts(SMALL, EASY)}
    many = {script.video_id: script for script in scripts(SyntheticConfig(), EASY)}

    assert all(many[video_id] == script for video_id, script in few.items())
    script = next(iter(few.values()))
    np.testing.assert_array_equal(draw(script, 0, EASY)[0], draw(script, 0, EASY)[0])
    assert not np.array_equal(draw(script, 0, EASY)[0], draw(script, 1, EASY)[0])


def test_another_timeline_is_refused():
    config = DataConfig(dataset="synthetic", num_segments=20, segment_s=0.5)
    with pytest.raises(DatasetError, match=r"num_segments and data\.segment_s must be 10 and 1"):
        load_dataset(config, NOWHERE)
