"""The saved chart view of a grid's experiment in MLflow's UI: cells side by side, averaged over their seeds.

MLflow stores a saved view as the tag `mlflow.sharedViewState.<id>` of the experiment: JSON with the name of the view
and the state of the page, compressed and base64-encoded. The format is not documented; it is the one that the UI of
MLflow 3.17 writes. A UI that cannot read it shows its default page. The view is listed under "Views".
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fcnlab.tracking.lab_id import TAG as LAB_TAG

VIEW = "fcnlab-cells"
"""Id of the view. Saving it again replaces it."""

TAG = f"mlflow.sharedViewState.{VIEW}"

TRIALS = "tags.`fcnlab.role` = 'trial' and tags.`fcnlab.current` = 'true'"
"""Filter of the view: the trials that the grid has now."""

BARS = ("miou", "pixel_acc", "cost/gmacs", "cost/train_seconds")
LINES = ("val/miou", "train/loss")


def encode_view(*, by_lab: bool = False) -> str:
    """Return the value of the tag: bar charts of metrics and cost per cell, and curves with their spread over seeds.

    Args:
        by_lab: show the cells of each lab separately, for an experiment of several labs: their cells with the same
            label may differ.
    """
    tags = ("fcnlab.cell", LAB_TAG) if by_lab else ("fcnlab.cell",)
    section = "fcnlab-metrics"
    charts = [_bar(metric, section) for metric in BARS] + [_line(metric, section) for metric in LINES]
    page = {
        "searchFilter": TRIALS,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            "params.`variant`",
            "params.`head`",
            "params.`upsampler`",
            "params.`seed`",
            "metrics.`miou`",
        ],
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": charts,
        "compareRunSections": [_section(section, "Cells, averaged over seeds")],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # otherwise sections are sorted by their names
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in tags],
        },
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(page).encode())).decode()
    return json.dumps({"name": "cells", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def format_view_url(server: str, experiment: str) -> str:
    """Return the address of an experiment in this view.

    Args:
        server: address of the MLflow server.
        experiment: id of the experiment.

    Returns:
        The URL.
    """
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?compareRunsMode=CHART&viewStateShareKey={VIEW}"


def format_runs_page(uri: str, experiment: str) -> str:
    """Return the address below which an MLflow server has the pages of an experiment's runs.

    Args:
        uri: tracking URI of the store.
        experiment: id of the experiment.

    Returns:
        The URL without user name and password; empty where the store is not an HTTP server.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    server = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    return f"{server}/#/experiments/{experiment}/runs"


def _section(uuid: str, name: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _chart(kind: str, metric: str, section: str) -> dict[str, Any]:
    return {
        "uuid": f"fcnlab-{metric}",
        "type": kind,
        "runsCountToCompare": 100,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": metric,
        "metricKey": metric,
    }


def _bar(metric: str, section: str) -> dict[str, Any]:
    return _chart("BAR", metric, section)


def _line(metric: str, section: str) -> dict[str, Any]:
    axes = {"xAxisKey": "step", "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": []}
    scales = {"xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "lineSmoothness": 0}
    shared = {"ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    return {**_chart("LINE", metric, section), "selectedMetricKeys": [metric], **axes, **scales, **shared}
