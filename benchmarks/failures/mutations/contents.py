"""Contents of text files that are mutated."""

from __future__ import annotations

import json

NAMES = ("ground", "road", "thing", "tree")

GRIDS = (
    """
question: Größe, does it run?
description: about skips
base: {backbone: tiny-scratch, upsampler: bilinear, dataset: shapes-mini, recipe: smoke, recipe.flip: 0.5}
product: {head: [fcn32s, fcn8s], recipe.epochs: [2, 3]}
exclude: [{head.stride: [8], recipe.epochs: 3}]
seeds: 2
baseline: {head: fcn32s, recipe.epochs: 2}
checkpoint: best
early_stopping: {after: [1], margin: 5.0}
labels:
  caption: Skips
  axes: {head: Head, recipe.epochs: Epochs}
  values: {head: {fcn32s: FCN-32s}}
  cells: {'fcn8s, 2': ours}
""",
    """
question: Ablation
base: {variant: fcn32s-tiny, dataset: shapes-mini, recipe: smoke}
ablate:
  mode: add
  changes:
    - {head: fcn8s}
    - {recipe.ema: 0.99, recipe.deterministic: true}
    - {recipe.optimizer: {name: adamw, lr: 0.001, betas: [0.9, 0.99]}, recipe.decay: weights}
    - {recipe.loss.ohem: {threshold: 0.6, keep: 0.1}, recipe.jitter.hue: 0.1}
seeds: [3, 4]
""",
    """
question: Blocks
base: {backbone: tiny-scratch, dataset: shapes-mini, recipe: smoke}
when: {recipe.loss.auxiliary: {head.auxiliary: 16}}
blocks:
  - base: {head: fcn32s}
    zip: {recipe.lr: [0.01, 0.02], recipe.batch_size: [4, 8]}
  - product: {head: [dilated8, dilated8-aux], recipe.loss.auxiliary: [0.2, 0.4]}
  - cells:
      - {head: fcn8s, head.at_once: true, init_from: {head: fcn16s, recipe.epochs: 2}}
      - {head: fcn16s, upsampler: bilinear, upsampler.learned: false, recipe.crop: {height: 32, width: 48}}
baseline: {head: fcn32s, recipe.lr: 0.01}
early_stopping: {after: 1, keep: 0.5}
""",
    """
question: Random search
base: {variant: fcn8s-tiny, dataset: shapes-mini, recipe: smoke, dataset.options.train: 12}
sample:
  n: 3
  seed: 1
  recipe.lr: {log_uniform: [0.0001, 0.1]}
  recipe.epochs: {int_uniform: [2, 6]}
  recipe.decay: {choice: [all, weights]}
cells: [{}]
baseline: {recipe.decay: all, recipe.epochs: 2, recipe.lr: 0.01}
""",
)

REGISTRY: dict[str, str] = {
    "backbones": """
one: {description: Größe, timm: test_resnet, tail: false, reductions: [2, 4, 8, 16, 32]}
two: {timm: test_resnet, weights: two.safetensors, weights_prefix: a.}
three: {paper: vgg16, weights: scratch, reductions: [8, 16, 32]}
""",
    "heads": """
one: {description: Größe, type: skip, stride: 8, at_once: true, fusion: concat, hidden: 16, context: false}
two: {type: dilated, output_stride: 8, convs: 2, concat_input: true, dropout: 0.2, auxiliary: 16}
three: {type: smp, decoder: fpn, options: {pyramid_channels: 32, dropout: 0.1}}
four: {type: paper, stride: 16, at_once: false}
""",
    "upsamplers": """
one: {description: Größe, init: bilinear, learned: true, channels: dense, bias: true,
  stage_init: {to8: random, image: zero}}
two: {type: interpolate, mode: nearest}
three: {type: resize, mode: bilinear}
""",
    "variants": """
one: {description: Größe, backbone: tiny-scratch, head: fcn8s, upsampler: bilinear}
two: {backbone: tiny-scratch, head: dilated8}
""",
    "recipes": """
one:
  description: Größe
  epochs: 4
  batch_size: 8
  crop: {height: 64, width: 48}
  scale: [0.5, 2.0]
  flip: 0.5
  jitter: {brightness: 0.3, contrast: 0.2, saturation: 0.1, hue: 0.05}
  cat_max_ratio: 0.75
  rotate: 10.0
  blur: {probability: 0.4, sigma: [0.1, 1.5]}
  optimizer: {name: sgd, lr: 0.01, momentum: 0.9, weight_decay: 0.0005, nesterov: true}
  lr_factors: {backbone: 0.1, head: 1.0, upsampler: 2.0, bias: 2.0}
  decay: weights
  schedule: {name: poly, power: 0.8, warmup_epochs: 1.0, milestones: [0.5, 0.7], gamma: 0.2}
  loss: {name: cross_entropy, reduction: pixel_mean, class_weights: median_frequency, label_smoothing: 0.1,
         weight: 1.0, dice: 0.5, lovasz: 0.25, auxiliary: 0.3}
  grad_accum_steps: 2
  grad_clip_norm: 1.0
  ema: 0.99
  batch_norm: eval
  freeze: stride4
  precision: bf16
  deterministic: true
  compile: false
  activation_checkpointing: stride8
  score_scale: 0.5
  validate_every: 2
  stop_on_plateau: {patience: 3, min_delta: 0.1}
two: {epochs: 1, batch_size: 1, crop: {height: 8, width: 8}, optimizer: {name: rmsprop, lr: 1.0, alpha: 0.9}}
""",
    "datasets": """
one:
  description: Größe
  type: folder
  images: street/images
  masks: street/masks
  mask_suffix: _mask
  unpaired: skip
  classes: {ground: 0, road: [1, 2], tree: 3}
  ignore: [11]
  lists: {train: street/train.txt, val: street/val.txt}
  nominal: {height: 24, width: 32}
  colors: {road: '#804080'}
  channels: 1
  value_range: [0.0, 4095.0]
two:
  type: folder
  images: street/images
  masks: street/masks
  mask_suffix: _mask
  classes: [ground, road, thing, tree]
  ignore: [11]
  fractions: {val: 0.25, test: 0.25, seed: 1, group_by: 'a(.)'}
  splits: {train: train, val: val, test: test}
  nominal: {height: 24, width: 32}
three: {type: shapes, splits: {test: test}, options: {train: 4, val: 2, test: 2, height: 32, width: 48, seed: 3}}
four: {type: camvid, folder: camvid, splits: {train: train, val: val, test: test}, nominal: {height: 36, width: 48}}
""",
    "extensions": """
heads: {mine: heads/mine.py:Mine}
datasets: {yours: data/yours.py:Yours}
transforms: {flips: data/flips.py:Flips}
""",
}

CLASS_LISTS = {
    "names.txt": "ground\nroad\nthing\ntree\n",
    "numbers.txt": "0: ground\n1: road\n2: thing\n3: tree\n",
    "colors.csv": "id,name,r,g,b\n0,ground,0,0,0\n1,road,128,64,128\n2,thing,1,2,3\n3,tree,9,9,9\n",
    "classes.yaml": "{ground: 0, road: 1, thing: 2, tree: 3}\n",
    "names.yaml": "names:\n  0: ground\n  1: road\n  2: thing\n  3: tree\n",
    "coco.json": json.dumps({"categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)]}),
}
