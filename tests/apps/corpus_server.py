"""gunicorn inside another program: python corpus_server.py PORT [process]; with `process`, in a child of it."""
import multiprocessing
import sys

from corpus_app import app
from gunicorn.app.base import BaseApplication


class Server(BaseApplication):
    """Serves `app` with two workers."""

    def load_config(self):
        self.cfg.set("bind", f"127.0.0.1:{sys.argv[1]}")
        self.cfg.set("workers", 2)

    def load(self):
        return app


def main():
    Server().run()


if __name__ == "__main__":
    if sys.argv[2:] == ["process"]:
        process = multiprocessing.get_context("fork").Process(target=main)
        process.start()
        process.join()
    else:
        main()
