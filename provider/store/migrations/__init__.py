"""Alembic's scripts: env.py, which Alembic runs, and one file for each revision."""
