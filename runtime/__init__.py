"""Run prunus artifacts: card, sessions, tasks, pipeline. Needs numpy alone until a back end opens."""

if __name__ != "prunus.runtime":
    raise ImportError(
        f"Imported as '{__name__}', expected 'prunus.runtime'. Install prunus first: pip install -e ."
    )
