"""The applications of the benchmark: Flask, Django and FastAPI, each with an endpoint that does next to nothing and one that computes."""
import os

FRAMEWORK = os.environ["BENCH_FRAMEWORK"]


def compute():
    """About ten milliseconds of Python: the same work each time, whatever else the machine does."""
    total = 0
    for number in range(160_000):
        total += number * number % 7
    return str(total)


if FRAMEWORK == "flask":
    from flask import Flask

    app = Flask(__name__)

    @app.route("/plain/<_id>")
    def plain(_id):
        return "plain\n"

    @app.route("/compute/<_id>")
    def computed(_id):
        return compute()

elif FRAMEWORK == "django":
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="bench", ALLOWED_HOSTS=["*"])
    urlpatterns = [
        path("plain/<_id>", lambda request, _id: HttpResponse("plain\n")),
        path("compute/<_id>", lambda request, _id: HttpResponse(compute())),
    ]
    app = get_wsgi_application()

elif FRAMEWORK == "fastapi":
    from fastapi import FastAPI
    from fastapi import Response

    app = FastAPI()

    @app.get("/plain/{_id}")
    async def plain(_id: str):
        return Response("plain\n")

    @app.get("/compute/{_id}")
    async def computed(_id: str):
        return Response(compute())
