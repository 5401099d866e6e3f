"""A study as rows, figures and pages."""
