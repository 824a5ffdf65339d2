//! Every worker class, with the application that the tests give it.

use crate::gunicorn::Launch;

/// `sync`.
pub fn sync() -> Launch {
    Launch::new("sync", "wsgi_app:app")
}

/// `gthread`, with four threads.
pub fn gthread() -> Launch {
    Launch::new("gthread", "flask_app:app").args(&["--threads", "4"])
}

/// `gevent`.
pub fn gevent() -> Launch {
    Launch::new("gevent", "wsgi_app:app")
}

/// `tornado`.
pub fn tornado() -> Launch {
    Launch::new("tornado", "tornado_app:app")
}

/// uvicorn's worker on asyncio, with h11.
pub fn uvicorn_asyncio() -> Launch {
    Launch::new("uvicorn.workers.UvicornH11Worker", "fastapi_app:app")
}

/// uvicorn's worker on uvloop, with httptools.
pub fn uvicorn_uvloop() -> Launch {
    Launch::new("uvicorn.workers.UvicornWorker", "fastapi_app:app")
}

/// gunicorn's `asgi` on asyncio.
pub fn asgi() -> Launch {
    Launch::new("asgi", "fastapi_app:app").args(&["--asgi-loop", "asyncio"])
}

/// gunicorn's `asgi` on uvloop.
pub fn asgi_uvloop() -> Launch {
    Launch::new("asgi", "fastapi_app:app").args(&["--asgi-loop", "uvloop"])
}
