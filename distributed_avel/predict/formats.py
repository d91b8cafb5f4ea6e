"""Predictions in the formats of annotation tools: Label Studio, ELAN and FiftyOne."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from distributed_avel.predict.prediction import Event, Prediction, label_name

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_EAF_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_NO_DATE = "1970-01-01T00:00:00+00:00"  # the same prediction gives the same file

_MIME_TYPES = {
    ".avi": "video/x-msvideo",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}


def label_studio_config(names: Sequence[str]) -> str:
    """Labelling interface of Label Studio for an audio-video timeline.

    Args:
        names: Names of the labels, as `label_studio_tasks` writes them.
    """
    labels = [f"    <Label value={quoteattr(name)}/>" for name in names]
    return "\n".join(
        [
            "<View>",
            '  <Labels name="events" toName="audio">',
            *labels,
            "  </Labels>",
            '  <Video name="video" value="$video" sync="audio"/>',
            '  <Audio name="audio" value="$video" sync="video"/>',
            "</View>",
            "",
        ]
    )


def label_studio_tasks(predictions: Sequence[Prediction], model: str) -> str:
    """Tasks of Label Studio, each with the events as a prediction (JSON).

    Args:
        predictions: One per task.
        model: Name of the model version.
    """
    return json.dumps([_task(prediction, model) for prediction in predictions], indent=1) + "\n"


def _task(prediction: Prediction, model: str) -> dict[str, Any]:
    events = prediction.events
    duration_s = prediction.num_segments * prediction.segment_s
    result = [
        {
            "id": _short_hash([prediction.video, number, event.label, event.modality]),
            "from_name": "events",
            "to_name": "audio",
            "type": "labels",
            "original_length": duration_s,
            "score": event.confidence,
            "value": {
                "start": event.start_s,
                "end": event.end_s,
                "channel": 0,
                "labels": [label_name(event.label, event.modality)],
            },
        }
        for number, event in enumerate(events)
    ]
    score = sum(event.confidence for event in events) / len(events) if events else 0.0
    made: dict[str, Any] = {"model_version": model, "score": score, "result": result}
    return {"data": {"video": prediction.video}, "predictions": [made]}


def to_eaf(prediction: Prediction) -> str:
    """Events as an ELAN annotation document (EAF 3.0): one tier per class, times in ms.

    An annotation is the name of its class. Confidences are in the other formats.
    """
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "distributed_avel",
            "DATE": _NO_DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": _XSI,
            "xsi:noNamespaceSchemaLocation": _EAF_SCHEMA,
        },
    )
    header = ElementTree.SubElement(
        document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    )
    path = PurePosixPath(prediction.video)
    is_uri = "://" in prediction.video
    media = {
        "MEDIA_URL": _in_xml(prediction.video) if is_uri else Path(path).absolute().as_uri(),
        "MIME_TYPE": _MIME_TYPES.get(path.suffix.lower(), "video/mpeg"),
    }
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", media)
    events = prediction.events
    last_id = ElementTree.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
    last_id.text = str(len(events))
    times = ElementTree.SubElement(document, "TIME_ORDER")
    tiers: dict[tuple[str, str], ElementTree.Element] = {}
    for number, event in enumerate(events, start=1):
        slots = [f"ts{2 * number - 1}", f"ts{2 * number}"]
        for slot, seconds in zip(slots, (event.start_s, event.end_s), strict=True):
            attributes = {"TIME_SLOT_ID": slot, "TIME_VALUE": str(round(seconds * 1000))}
            ElementTree.SubElement(times, "TIME_SLOT", attributes)
        key = (event.label, event.modality)
        if key not in tiers:
            name = _in_xml(label_name(*key))
            attributes = {"LINGUISTIC_TYPE_REF": "event", "TIER_ID": name}
            tiers[key] = ElementTree.SubElement(document, "TIER", attributes)
        _add_annotation(tiers[key], number, slots, event)
    ElementTree.SubElement(
        document,
        "LINGUISTIC_TYPE",
        {
            "GRAPHIC_REFERENCES": "false",
            "LINGUISTIC_TYPE_ID": "event",
            "TIME_ALIGNABLE": "true",
        },
    )
    ElementTree.indent(document, " ")
    text = ElementTree.tostring(document, "unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add_annotation(
    tier: ElementTree.Element, number: int, slots: Sequence[str], event: Event
) -> None:
    annotation = ElementTree.SubElement(tier, "ANNOTATION")
    attributes = {
        "ANNOTATION_ID": f"a{number}",
        "TIME_SLOT_REF1": slots[0],
        "TIME_SLOT_REF2": slots[1],
    }
    aligned = ElementTree.SubElement(annotation, "ALIGNABLE_ANNOTATION", attributes)
    ElementTree.SubElement(aligned, "ANNOTATION_VALUE").text = _in_xml(event.label)


def _in_xml(text: str) -> str:
    """A name on one line, without the control characters that XML cannot have."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def fiftyone_labels(predictions: Sequence[tuple[str, Prediction]], names: Sequence[str]) -> str:
    """`labels.json` of a `FiftyOneTemporalDetectionDataset`: times in seconds, with confidences.

    Args:
        predictions: With the path of each video below the folder of the videos, without suffix.
        names: Names of the labels.
    """
    labels = {
        stem: [
            {
                "label": names.index(label_name(event.label, event.modality)),
                "timestamps": [event.start_s, event.end_s],
                "confidence": event.confidence,
            }
            for event in prediction.events
        ]
        for stem, prediction in predictions
    }
    return json.dumps({"classes": list(names), "labels": labels}, indent=1) + "\n"


def _short_hash(values: Sequence[object]) -> str:
    digest = hashlib.sha256(json.dumps(values).encode()).digest()
    return uuid.UUID(bytes=digest[:16]).hex[:10]
