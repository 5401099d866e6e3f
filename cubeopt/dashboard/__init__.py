"""The pages: Optuna's dashboard and ours, from one server."""
