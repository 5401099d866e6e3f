"""Revisions of the tables, by Alembic."""
