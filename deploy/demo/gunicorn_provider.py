"""The demo's back: a synchronous application that knows what is in stock, and one item that it does not know."""

import os

from flask import Flask
from flask import abort
from flask import jsonify

app = Flask(__name__)


@app.get("/stock/<int:item>")
def stock(item):
    if item == 6:
        abort(404)
    return jsonify(item=item, left=item * 3, worker=os.getpid())


@app.errorhandler(404)
def unknown(error):
    return jsonify(error="no such item", worker=os.getpid()), 404
