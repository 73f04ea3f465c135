"""Web preview of a run: page, pictures, state and metrics."""
