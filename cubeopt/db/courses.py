"""The values of all epochs of a study, a row for each run: what curves are drawn from."""

from datetime import datetime

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction

Course = list[tuple[int, float | None]]  # epoch and value of each epoch recorded, by epoch


def read(engine: Engine, study_id: int) -> dict[int, Course]:
    """By run id, its course; a run that recorded no epoch is not there.

    Fifty thousand epochs are read in a fraction of the time that their metrics would take.
    """
    with transaction(engine) as connection:
        rows = connection.execute(_COURSES, {"study_id": study_id})
        return {run_id: list(zip(epochs, values, strict=True)) for run_id, epochs, values in rows}


def now(engine: Engine) -> datetime:
    """The moment, by the clock of the database, which all its timestamps are of."""
    with transaction(engine) as connection:
        moment = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert isinstance(moment, datetime)
    return moment


_COURSES = text("""
    SELECT run.id, array_agg(epoch.epoch ORDER BY epoch.epoch),
        array_agg(epoch.value ORDER BY epoch.epoch)
    FROM cubeopt.runs run JOIN cubeopt.epochs epoch ON epoch.run_id = run.id
    WHERE run.study_id = :study_id
    GROUP BY run.id
    ORDER BY run.id
""")
