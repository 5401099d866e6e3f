"""Whether anything of a study has changed: a word that stays as long as nothing has."""

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction


def stamp(engine: Engine, name: str) -> str | None:
    """The word of the study called *name*; None when there is none.

    It changes with the study's row, with each trial that is added or ends, with each claim, report,
    release and end of a run.
    """
    with transaction(engine) as connection:
        found: str | None = connection.execute(_STAMP, {"name": name}).scalar()
        return found


# A row's xmin is the transaction that wrote it last. Tokens and epochs only ever grow.
_STAMP = text("""
    SELECT concat_ws(' ',
        study.id, study.xmin,
        (SELECT count(*) FROM cubeopt.trials WHERE study_id = study.id),
        (SELECT concat_ws(' ', count(*), sum(epoch), sum(token), max(finished_at), count(value),
            count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'running'),
            count(*) FILTER (WHERE state = 'complete'), count(*) FILTER (WHERE state = 'pruned'),
            count(test_value))
        FROM cubeopt.runs WHERE study_id = study.id)
    )
    FROM cubeopt.studies study WHERE name = :name
""")
