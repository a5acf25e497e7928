"""Using what was trained: a model to predict with, pictures of its predictions, files for elsewhere."""
