"""gunicorn inside a program of its own: nothing on its command line says so."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from gunicorn.app.base import BaseApplication

import wild_app

OPTIONS = {"bind": "unix:/srv/state/socket", "workers": 1}


class Embedded(BaseApplication):
    def load_config(self):
        for name, value in OPTIONS.items():
            self.cfg.set(name, value)
        self.cfg.set("post_worker_init", lambda worker: worker.log.info("worker ready: %s", worker.pid))

    def load(self):
        return wild_app.app


if __name__ == "__main__":
    Embedded().run()
