"""A dirty app of the corpus."""
from gunicorn.dirty.app import DirtyApp


class App(DirtyApp):
    """Adds."""

    def add(self, a, b):
        return a + b
