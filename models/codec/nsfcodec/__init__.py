"""NsfCodec: a neural source-filter codec of this project."""
