"""Check every architecture of timm as a backbone: it builds, scores have the image's size, gradients are finite.

    python -m benchmarks.timm_sweep --out docs/sweep

No weights are downloaded. Models run in worker processes with limits on time and memory, so that a crash costs one row.
Rows are appended to `--rows` (JSON lines); if the command is started again, it resumes, and `--models` runs some models
again. At the end `README.md` and `timm.csv` are written from the rows of all models.

A model is built once with random weights. In training mode one batch of 2 is passed through it, its maps through the
heads fcn32s, fcn16s, fcn8s and fcn4s, and the sum of their losses is differentiated; the gradient of each head must
reach the map at stride 32, that of all heads the backbone's first convolution, and both must be finite. In evaluation
mode an image of an odd size is passed through backbone and heads; scores must have exactly its size. The same is done
with dilated16 if timm can dilate the model. Models above `--budget`, except for the smallest of each family, run only
in evaluation mode and on the meta device: shapes are checked, values are not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import random
import resource
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import fcnlab
from fcnlab.config.registry import builtin
from fcnlab.config.variant import Variant
from fcnlab.errors import ModelError
from fcnlab.models import FCN
from fcnlab.models.backbones.timm import TimmBackbone
from fcnlab.trial import build

SKIP_HEADS = ("fcn32s", "fcn16s", "fcn8s", "fcn4s")
HEADS = (*SKIP_HEADS, "dilated16")
CLASSES = 5
SIZES = ((64, 96), (128, 192), (256, 384))
ODD = (1, 1)
# The smallest models of families whose models are all above the budget: they run with values, like one of each family.
WHATEVER_THE_BUDGET = (
    "davit_tiny", "focalnet_tiny_srf", "hiera_tiny_224", "inception_resnet_v2", "inception_v3", "inception_v4",
    "legacy_xception", "mobilenetv5_base", "mvitv2_tiny", "nasnetalarge", "nextvit_small", "pnasnet5large",
    "rdnet_tiny", "res2next50", "sam2_hiera_tiny", "selecsls42", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224",
    "swinv2_tiny_window8_256", "tresnet_m", "twins_svt_small", "xception41p",
)  # fmt: skip
Row = dict[str, Any]


def _code() -> str:
    """Return a digest of the code: the modules of backbones and heads."""
    folder = Path(fcnlab.__file__).parent / "models"
    paths = sorted([*folder.glob("backbones/*.py"), *folder.glob("heads/*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:10]


CODE = _code()  # of the code as imported


def main() -> None:
    """Run the models that have no row yet and write the table and the page."""
    options = _options()
    names = timm.list_models()[: options.limit]
    again = set(options.models or ())
    done = _read(options.rows)
    todo = sorted(again) if again else [name for name in names if name not in done]
    random.Random(0).shuffle(todo)  # so that an interrupted sweep is a random sample
    print(f"{len(todo)} of {len(names)} models to run, {options.workers} at a time", flush=True)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    with options.rows.open("a") as file:
        for i, row in enumerate(_run_all(todo, options), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{i}/{len(todo)} {row['model']}: {row['state']} {row.get('reason', '')}", flush=True)
    rows = _read(options.rows)
    _write_table([rows[name] for name in names if name in rows], options.out / "timm.csv")
    text = page([rows[name] for name in names if name in rows], len(names), options)
    (options.out / "README.md").write_text(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of README.md and timm.csv")
    parser.add_argument("--rows", type=Path, default=Path("build/timm_sweep.jsonl"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first N models")
    parser.add_argument("--models", nargs="+", help="run these, even if they have a row already")
    parser.add_argument(
        "--budget", type=float, default=12, help="million parameters above which only shapes are checked"
    )
    parser.add_argument("--seconds", type=float, default=600, help="time limit of a model")
    parser.add_argument("--gib", type=float, default=10, help="memory limit of a model (address space)")
    return parser.parse_args()


def _read(path: Path) -> dict[str, Row]:
    """Return the rows by model; the last one if a model has several."""
    if not path.exists():
        return {}
    return {row["model"]: row for row in map(json.loads, path.read_text().splitlines())}


# Processes.


def _run_all(names: list[str], options: argparse.Namespace) -> Iterator[Row]:
    """Run each model in a process of its own, several at a time, and yield their rows as they end."""
    with ThreadPoolExecutor(options.workers) as pool:
        rows = [pool.submit(_run_one, name, options) for name in names]
        yield from (row.result() for row in as_completed(rows))


def _run_one(name: str, options: argparse.Namespace) -> Row:
    """Run a model in a forked process; return its row, also if the process dies or takes too long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "fcnlab.trial.build"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, name, options), daemon=True)
    process.start()
    theirs.close()
    row: Row = {"state": "failed", "reason": f"not done after {options.seconds:.0f} s"}
    if ours.poll(options.seconds):
        try:
            row = ours.recv()
        except EOFError:
            process.join()
            row = {"state": "failed", "reason": f"its process died with exit code {process.exitcode}"}
    process.kill()
    process.join()
    return {"model": name, "date": f"{datetime.date.today()}", "code": CODE, "budget": options.budget, **row}


def _run(pipe: Connection, name: str, options: argparse.Namespace) -> None:
    limit = int(options.gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pipe.send(try_model(name, options.budget))


# One model.


def try_model(name: str, budget: float) -> Row:
    """Return the row of one model: `served`, `refused` with fcnlab's reason, or `failed`.

    Args:
        name: name of a timm model.
        budget: million parameters above which only shapes are checked.
    """
    try:
        with torch.device("meta"):
            plain = build.build_model(_variant(name, "fcn32s"), CLASSES, seed=0).backbone
    except ModelError as error:
        return {"state": "refused", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - becomes a row of the table
        return {"state": "failed", "reason": _line(error)}
    assert isinstance(plain, TimmBackbone)
    million = sum(p.numel() for p in plain.parameters()) / 1e6
    device = "meta" if million > budget and name not in WHATEVER_THE_BUDGET else "cpu"
    row: Row = {
        "million_parameters": round(million, 2),
        "reductions": sorted(plain.channels),
        "layout": "NHWC" if plain._nhwc else "NCHW",
        "multiple": plain.multiple,
        "margin": plain._margin,
        "fixed_size": plain.fixed_size,
        "run": "shapes" if device == "meta" else "values",
    }
    row["size"], heads = _tried(name, SKIP_HEADS, device, plain.fixed_size)
    _, dilated = _tried(name, ("dilated16",), device, plain.fixed_size)
    row["heads"] = heads | dilated
    failures = [answer for answer in row["heads"].values() if answer.startswith("failed")]
    return {"state": "failed" if failures else "served", **row, **({"reason": failures[0]} if failures else {})}


def _tried(
    name: str, heads: tuple[str, ...], device: str, fixed: tuple[int, int] | None
) -> tuple[tuple[int, int], dict[str, str]]:
    """Try the heads at the smallest size that the model can be trained at; return the size and the result by head."""
    for size in [fixed] if fixed else SIZES:
        try:
            answers = _try_heads(name, heads, device, size, fixed)
        except ModelError as error:
            return size, dict.fromkeys(heads, f"n/a: {error}")
        except Exception as error:  # noqa: BLE001 - becomes a row of the table
            answers = dict.fromkeys(heads, f"failed: {_line(error)}")
        if not any(answer.startswith("failed") for answer in answers.values()):
            break
    return size, answers


def _try_heads(
    name: str, heads: tuple[str, ...], device: str, size: tuple[int, int], fixed: tuple[int, int] | None
) -> dict[str, str]:
    with torch.device(device):
        first = build.build_model(_variant(name, heads[0]), CLASSES, seed=0)
        backbone, answers, models = first.backbone, dict[str, str](), {heads[0]: first}
        for head in heads[1:]:
            try:
                models[head] = FCN(backbone, build.build_head(_variant(name, head), backbone, CLASSES))
            except ModelError as error:
                answers[head] = f"n/a: {error}"
        wrong = _training_problems(models, size) if device == "cpu" else {}
        odd = fixed or (size[0] + ODD[0], size[1] + ODD[1])
        for head, problem in _size_problems(models, odd, device).items():
            wrong.setdefault(head, problem)
    if fixed:
        _refuses_other_sizes(first, fixed, device)
    return answers | {head: f"failed: {wrong[head]}" if head in wrong else "ok" for head in models}


def _training_problems(models: Mapping[str, FCN], size: tuple[int, int]) -> dict[str, str]:
    """Run a training step without its update; return what is wrong with scores and gradients, by head."""
    backbone = next(iter(models.values())).backbone.train()
    features = backbone(_noise(2, size, "cpu"))
    maps = {r: map_.detach().requires_grad_() for r, map_ in features.items()}
    wrong = {}
    for head, model in models.items():
        model.head.train()
        scores = model.head(maps, size)
        before = None if maps[32].grad is None else maps[32].grad.clone()
        scores.square().mean().backward()
        if scores.shape != (2, CLASSES, *size):
            wrong[head] = f"scores {list(scores.shape)} for images of {size}"
        elif maps[32].grad is None or not _is_nonzero(maps[32].grad, before):
            wrong[head] = "no finite gradient at the map of stride 32"
    used = [r for r in maps if maps[r].grad is not None]
    torch.autograd.backward([features[r] for r in used], [maps[r].grad for r in used])
    # Not the first parameter: in a few models only the classifier uses it.
    first = next(module for module in backbone.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    if first.weight.grad is None or not _is_nonzero(first.weight.grad):
        wrong |= dict.fromkeys(models, "no finite gradient at the first convolution of the backbone")
    return wrong


def _is_nonzero(gradient: Tensor, before: Tensor | None = None) -> bool:
    change = gradient if before is None else gradient - before
    return bool(gradient.isfinite().all() and change.abs().max() > 0)


@torch.inference_mode()
def _size_problems(models: Mapping[str, FCN], size: tuple[int, int], device: str) -> dict[str, str]:
    backbone = next(iter(models.values())).backbone.eval()
    features = backbone(_noise(1, size, device))
    wrong = {}
    for head, model in models.items():
        scores = model.head.eval()(features, size)
        if scores.shape != (1, CLASSES, *size):
            wrong[head] = f"scores {list(scores.shape)} for an image of {size}"
        elif device != "meta" and not scores.isfinite().all():
            wrong[head] = f"scores for an image of {size} are not finite"
    return wrong


def _refuses_other_sizes(model: FCN, fixed: tuple[int, int], device: str) -> None:
    with contextlib.suppress(ModelError):
        model(_noise(1, (fixed[0], fixed[1] + 32), device))
        raise RuntimeError(f"accepts another size than {fixed}, its only one")


def _noise(batch: int, size: tuple[int, int], device: str) -> Tensor:
    if device == "meta":
        return torch.empty(batch, 3, *size, device="meta")
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def _variant(name: str, head: str) -> Variant:
    return Variant.model_validate(
        {
            "backbone": {"timm": name},
            "head": builtin().get("head", head),
            "upsampler": {"type": "interpolate", "mode": "bilinear"},
        }
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


# What is written.


def _write_table(rows: list[Row], path: Path) -> None:
    columns = ["million_parameters", "reductions", "layout", "multiple", "margin", "fixed_size", "size", "run"]
    families = {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "family", "state", *columns, *HEADS, "reason"])
        for row in rows:
            heads = [row.get("heads", {}).get(head, "").partition(":")[0] for head in HEADS]
            cells = [_cell(column, row.get(column)) for column in columns]
            name = row["model"]
            table.writerow([name, families.get(name, ""), row["state"], *cells, *heads, row.get("reason", "")])


def _cell(column: str, value: Any) -> str:
    if column in ("fixed_size", "size"):
        return "x".join(map(str, value)) if value else ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


ONE_SCALE = " only; a backbone needs several"
NO_FEATURES = " has no multi-scale features"


def page(rows: list[Row], total: int, options: argparse.Namespace) -> str:
    """Return the page as Markdown.

    Args:
        rows: the rows of the models.
        total: number of models that timm lists.
        options: the options of the command line.
    """
    featureless = [row for row in rows if NO_FEATURES in row.get("reason", "")]
    one_scale = [row for row in rows if ONE_SCALE in row.get("reason", "")]
    able = [row for row in rows if row not in featureless and row not in one_scale]
    shapes = [row for row in able if row.get("run") == "shapes"]
    larger = [row for row in able if tuple(row.get("size") or SIZES[0]) != SIZES[0]]
    dates = sorted({row["date"] for row in rows})
    codes = Counter(row["code"] for row in rows)
    lines = [
        "# Every model of timm as a backbone",
        "",
        "Generated by `benchmarks/timm_sweep.py`; its module docstring lists the checks. [timm.csv](timm.csv)",
        "has one row per model. No weights are downloaded and no timings are recorded.",
        "",
        "```",
        f"python -m benchmarks.timm_sweep --out docs/sweep --budget {options.budget:g}",
        "```",
        "",
        f"{len(rows)} of {total} models were run, {' to '.join(sorted({dates[0], dates[-1]}))}, on a CPU "
        f"({platform.machine()}, {os.cpu_count()} cores, {platform.system()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}, fcnlab {fcnlab.__version__}. If the command is "
        "started again, it resumes, so rows may come from several runs. " + _codes(codes),
        "",
        f"- timm lists **{total}** architectures.",
        f"- **{len(rows) - len(featureless)}** expose features; of these **{len(able)}** have maps at several strides "
        f"including 32, and can be used as backbones. fcnlab rejects the other {len(one_scale)}, and the "
        f"{len(featureless)} without features, with the reasons below.",
        f"- {len(able) - len(shapes)} of the {len(able)} ran with values and gradients: those of up to "
        f"{options.budget:g} M parameters, and the smallest model of each family. The other {len(shapes)} ran on the "
        "meta device in evaluation mode, which checks their shapes but no values or gradients.",
        f"- Images are {_by(SIZES[0])} in training and {_by((SIZES[0][0] + ODD[0], SIZES[0][1] + ODD[1]))} in "
        f"evaluation; {len(larger)} models need larger images or a fixed size (column `size`).",
        f"- {sum(row.get('multiple', 1) > 1 for row in able)} models need images padded to a multiple (column "
        f"`multiple`), {sum(row.get('margin', 0) > 0 for row in able)} of them with a margin on all sides, and "
        f"{sum(bool(row.get('fixed_size')) for row in able)} accept only one size (column `fixed_size`). "
        f"{sum(row.get('layout') == 'NHWC' for row in able)} return maps as NHWC, which the backbone transposes.",
        "",
        "## Under each head",
        "",
        f"*Can serve* counts the models among the {len(able)} that have all strides used by the head; for dilated16, "
        "the models that timm can dilate. The other models are n/a for the head, not failures.",
        "",
        "| head | can serve | pass | per cent |",
        "| --- | ---: | ---: | ---: |",
    ]
    for head in HEADS:
        serving = [a for row in able if not (a := row.get("heads", {}).get(head, "failed")).startswith("n/a")]
        passing = serving.count("ok")
        lines.append(f"| {head} | {len(serving)} | {passing} | {100 * passing / max(1, len(serving)):.1f} |")
    lines += ["", "## Failures", ""]
    failed = [row for row in able if row["state"] != "served"]
    lines += [f"- `{row['model']}`: {row['reason']}" for row in failed] or ["None."]
    lines += ["", "## Rejected", "", *_grouped(featureless + one_scale)]
    lines += ["", "## Not dilated", "", "Reasons why models cannot be built with `output_stride: 16`.", ""]
    lines += _grouped([_refusal_of_dilation(row) for row in able if _refusal_of_dilation(row)["reason"]])
    return "\n".join(lines) + "\n"


def _refusal_of_dilation(row: Row) -> Row:
    answer = row.get("heads", {}).get("dilated16", "")
    return {"model": row["model"], "reason": answer.removeprefix("n/a: ") if answer.startswith("n/a") else ""}


def _grouped(rows: list[Row]) -> list[str]:
    """Return a table of reasons, the most frequent first, with the models of each."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["reason"].replace(f"timm's '{row['model']}' ", "")].append(row["model"])
    lines = ["| reason | models | names |", "| --- | ---: | --- |"]
    for reason, models in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"| {reason.replace('|', '/')} | {len(models)} | {', '.join(models)} |")
    return lines


def _codes(codes: Counter[str]) -> str:
    """Return a sentence about the versions of the code that produced the rows; several after a change of the code."""
    if len(codes) == 1:
        return f"All rows were produced by one version of the code ({next(iter(codes))})."
    parts = ", ".join(f"{count} of {code}" for code, count in codes.most_common())
    return f"Rows were produced by several versions of the code: {parts}."


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    main()
