"""PyTorch reference networks, token reducers, checkpoints and training recipes."""

if __name__ != "prunus.models":
    raise ImportError(
        f"Imported as '{__name__}', expected 'prunus.models'. "
        "Install prunus first: pip install -e ."
    )
