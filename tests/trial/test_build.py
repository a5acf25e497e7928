"""Objects that are built from a recipe."""

from __future__ import annotations

import torch

from fcnlab.data.batches import sample_images
from fcnlab.lab import Lab
from fcnlab.training.losses import Loss, compute_class_weights
from fcnlab.trial.build import build_model, build_training
from tests.builders import build_trial


def test_class_weights_and_schedule_are_those_of_the_images_and_steps_that_are_used(lab: Lab) -> None:
    recipe = {"train_size": 6, "steps_per_epoch": 5, "epochs": 3, "fused": "off"}
    trial = build_trial(
        lab=lab, seed=1, loss={"class_weights": "median_frequency"}, schedule={"name": "poly"}, **recipe
    )
    dataset = lab.open_dataset(trial.dataset)
    model = build_model(trial.variant, len(dataset.classes), trial.seed)
    training = build_training(trial.recipe, model, dataset, split="train", seed=trial.seed)

    split = dataset.split("train")
    labels = [torch.tensor(split[index].label) for index in sample_images(6, len(split), seed=1)]
    expected = compute_class_weights(labels, len(dataset.classes))
    assert isinstance(training.loss, Loss) and training.loss.class_weights is not None
    assert torch.equal(training.loss.class_weights, expected)
    every = compute_class_weights((torch.tensor(sample.label) for sample in split), len(dataset.classes))
    assert not torch.equal(expected, every)
    assert training.batches.steps == 5
    assert [training.schedule(step) for step in (0, 15)] == [1, 0]
