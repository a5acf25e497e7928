"""The saved chart view that a grid's experiment has in MLflow's UI: cells side by side, averaged over their seeds.

MLflow keeps a saved view as a tag of the experiment, `mlflow.sharedViewState.<id>`: JSON with a name and the state of
its page, deflated and in base64. The form was read off what the UI of MLflow 3.17 itself writes; a UI that does not
know it shows its default page. The view is named, and stands under "Views" on the page of the runs.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

VIEW = "fcnlab-cells"
"""The view's id; a tag of this name is written over, so that there is one."""

TAG = f"mlflow.sharedViewState.{VIEW}"

TRIALS = "tags.`fcnlab.role` = 'trial' and tags.`fcnlab.current` = 'true'"
"""What the view shows of an experiment: the trials of the grid as its file is now."""

BARS = ("miou", "pixel_acc", "gmacs", "train_seconds")
LINES = ("epoch_val_miou", "epoch_loss")


def state() -> str:
    """The value of the tag: a bar a cell for each figure and cost, and the curves, with their spread over seeds."""
    section = "fcnlab-figures"
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
        "compareRunSections": [_section(section)],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "fcnlab.cell"}]},
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(page).encode())).decode()
    return json.dumps({"name": "cells", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def address(server: str, experiment: str) -> str:
    """Where a server shows the runs of an experiment in this view."""
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?compareRunsMode=CHART&viewStateShareKey={VIEW}"


def _section(uuid: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": "Cells, averaged over seeds",
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
