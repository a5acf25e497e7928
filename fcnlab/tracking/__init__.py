"""Publication of trials to MLflow and TensorBoard. No other package imports mlflow.

The path of a record: `runner.publisher` queues a call for each tracker that `runner.trackers` opens, and the thread of
`runner.tracker_thread` calls the interface `base.Tracker`. `tracker.MlflowTracker` keeps the run of each trial in a
`trial_run.TrialRun`. `fields` reads metrics, tags and parameters from the record, under the names of `names`, and
`store` describes errors of MLflow in one line.
"""
