"""Formats of annotation tools, read by other libraries where these are installed."""

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pympi
import pytest
import webvtt

from distributed_avel.predict.formats import (
    fiftyone_labels,
    label_studio_config,
    label_studio_tasks,
    to_eaf,
)
from distributed_avel.predict.prediction import Column, Prediction, label_name, to_vtt

COLUMNS = (
    Column("dog & cat", "audio-visual"),
    Column('a < "b"', "audio"),
    Column("two\nlines", "visual"),
)
NAMES = [label_name(column.label, column.modality) for column in COLUMNS]


@pytest.fixture
def prediction() -> Prediction:
    """Events of three classes that overlap, in segments of 0.96 s."""
    predicted_MC = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=bool)
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(size=predicted_MC.shape).astype(np.float32)
    return Prediction(
        video="/data/a b.mp4", segment_s=0.96, columns=COLUMNS, probabilities=probabilities,
        predicted=predicted_MC,
    )  # fmt: skip


def test_webvtt_py_reads_the_times_and_texts_of_all_events(prediction):
    captions = list(webvtt.from_string(to_vtt(prediction.events)))

    assert len(captions) == len(prediction.events) == 4
    for caption, event in zip(captions, prediction.events, strict=True):
        assert caption.start_in_seconds == pytest.approx(event.start_s, abs=1)
        assert caption.start == f"00:00:{event.start_s:06.3f}"
        assert caption.end == f"00:00:{event.end_s:06.3f}"
        assert " ".join(event.label.split()).split(" ")[0] in caption.text


def test_pympi_reads_a_tier_for_each_class_with_its_times_in_milliseconds(prediction, tmp_path):
    path = tmp_path / "a.eaf"
    path.write_text(to_eaf(prediction), encoding="utf-8")

    eaf = pympi.Elan.Eaf(path)

    tiers = {name: sorted(eaf.get_annotation_data_for_tier(name)) for name in eaf.get_tier_names()}
    assert tiers == {
        "dog & cat": [(0, 1920, "dog & cat"), (2880, 3840, "dog & cat")],
        'a < "b" (audio)': [(960, 2880, 'a < "b"')],
        "two lines (visual)": [(0, 1920, "two lines")],
    }
    (media,) = eaf.get_linked_files()
    assert media["MEDIA_URL"] == "file:///data/a%20b.mp4"


@pytest.mark.parametrize(
    ("video", "url"),
    [
        ("clips/a\x01 #.mp4", f"{Path.cwd().as_uri()}/clips/a%01%20%23.mp4"),
        ("s3://bucket/a\x01.mp4", "s3://bucket/a .mp4"),
    ],
)
def test_the_address_in_a_document_of_elan_is_a_url_in_well_formed_xml(prediction, video, url):
    document = ElementTree.fromstring(to_eaf(replace(prediction, video=video)))

    (media,) = document.iter("MEDIA_DESCRIPTOR")
    assert media.get("MEDIA_URL") == url


def test_a_document_without_events_is_read_by_pympi(prediction, tmp_path):
    path = tmp_path / "a.eaf"
    nothing = np.zeros_like(prediction.predicted)
    empty = Prediction(
        video="a.odd", segment_s=1.0, columns=COLUMNS, probabilities=prediction.probabilities,
        predicted=nothing,
    )  # fmt: skip
    path.write_text(to_eaf(empty), encoding="utf-8")

    assert list(pympi.Elan.Eaf(path).get_tier_names()) == []


def test_label_studio_tasks_have_the_events_in_seconds_on_the_tags_of_the_interface(prediction):
    interface = ElementTree.parse(io.StringIO(label_studio_config(NAMES))).getroot()
    (task,) = json.loads(label_studio_tasks([prediction], "AVE+LR 0123"))

    tags = {tag.get("name"): tag for tag in interface.iter() if tag.get("name")}
    assert [label.get("value") for label in tags["events"]] == NAMES
    assert tags["video"].get("sync") == "audio"
    assert tags["video"].get("value") == tags["audio"].get("value") == "$video"
    assert task["data"] == {"video": "/data/a b.mp4"}
    (made,) = task["predictions"]
    assert made["model_version"] == "AVE+LR 0123"
    assert len({region["id"] for region in made["result"]}) == 4
    for region, event in zip(made["result"], prediction.events, strict=True):
        assert (region["from_name"], region["to_name"]) == ("events", "audio")
        assert region["type"] == "labels"
        assert region["value"]["labels"] == [label_name(event.label, event.modality)]
        assert (region["value"]["start"], region["value"]["end"]) == (event.start_s, event.end_s)
        assert region["score"] == event.confidence


def test_the_sdk_of_label_studio_accepts_the_predictions(prediction):
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="needs label-studio-sdk")
    interface = sdk.LabelInterface(label_studio_config(NAMES))
    (task,) = json.loads(label_studio_tasks([prediction], "model"))

    interface.validate()
    assert interface.validate_task({"data": task["data"]})
    assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []


def test_fiftyone_labels_are_indices_of_classes_with_times_in_seconds(prediction):
    labels = json.loads(fiftyone_labels([("sub/a b", prediction)], NAMES))

    assert labels["classes"] == NAMES
    assert [
        (NAMES[event["label"]], event["timestamps"], event["confidence"])
        for event in labels["labels"]["sub/a b"]
    ] == [
        (label_name(event.label, event.modality), [event.start_s, event.end_s], event.confidence)
        for event in prediction.events
    ]
