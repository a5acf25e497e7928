"""Publication of trials to MLflow. No other package imports mlflow."""
