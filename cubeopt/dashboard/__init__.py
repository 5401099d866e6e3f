"""The dashboard: one server for Optuna's pages and our own."""
