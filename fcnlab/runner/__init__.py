"""Many trials: the driver, and executors behind one small interface."""
