"""gunicorn inside a program of its own, with gunicorn's options: nothing says what it serves."""
from gunicorn.app.base import Application

import framework_app


class Server(Application):
    """Serves what `framework_app` made."""

    def init(self, parser, opts, args):
        return {}

    def load(self):
        return framework_app.app


if __name__ == "__main__":
    Server("%(prog)s [OPTIONS]").run()
