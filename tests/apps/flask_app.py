"""A Flask application with the actions that every test application has."""
import time

from flask import Flask
from flask import request
from flask import Response

import served

app = Flask(__name__)
ANY = ["GET", "POST", "PUT", "DELETE"]


@app.before_request
def count():
    served.count()


@app.after_request
def name(response):
    response.headers["X-Worker"] = served.who()
    return response


def query():
    return request.query_string.decode()


@app.route("/plain/<_id>", methods=ANY)
def plain(_id):
    return served.who() + "\n"


@app.route("/echo/<_id>", methods=ANY)
def echo(_id):
    return Response(request.get_data())


@app.route("/early/<_id>", methods=ANY)
def early(_id):
    return Response("not read\n", 413)


@app.route("/stream/<_id>", methods=ANY)
def stream(_id):
    parts = served.pieces(query())
    return Response(part for part in parts)


@app.route("/empty/<_id>", methods=ANY)
def empty(_id):
    return Response(status=204)


@app.route("/same/<_id>", methods=ANY)
def same(_id):
    return Response(status=304)


@app.route("/fail/<_id>", methods=ANY)
def fail(_id):
    return Response("failed\n", 500)


@app.route("/broken/<_id>", methods=ANY)
def broken(_id):
    raise RuntimeError("on purpose")


@app.route("/slow/<_id>", methods=ANY)
def slow(_id):
    time.sleep(served.number(query(), "ms", 20) / 1000)
    return plain(_id)


@app.route("/large/<_id>", methods=ANY)
def large(_id):
    return Response(served.body(query()))


@app.route("/leave/<_id>", methods=ANY)
def leave(_id):
    served.leave()
