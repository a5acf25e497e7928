"""Training and evaluation of one model: loop, losses, optimizers, sliding-window inference and costs."""
