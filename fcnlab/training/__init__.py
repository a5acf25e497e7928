"""Training and scoring of one model: the loop, losses, optimisers, native-size evaluation, costs."""
