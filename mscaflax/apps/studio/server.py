"""The studio as a web application (Starlette)."""

import asyncio
import contextlib
import logging
import threading
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mscaflax.apps.studio.guards import MAX_BODY, Guard, TooLarge
from mscaflax.apps.studio.requests import (
    answer_json,
    exemplar_json,
    file_of,
    layout_json,
    parse_job,
)
from mscaflax.apps.studio.service import MAX_EXEMPLARS
from mscaflax.errors import UserError

PAGE = Path(__file__).parent / "page"
THREAD_NAME = "studio"  # of the threads that requests are answered in

_MAX_PARTS = 2 + 2 * MAX_EXEMPLARS
_UNKNOWN = "something went wrong here: the server's log says what; reload the page to go on"
_LOG = logging.getLogger("mscaflax.studio")


def build_app(studio, host="127.0.0.1", warm=True):
    """The application that serves a Studio.

    Args:
      studio: a mscaflax.apps.studio.service.Studio.
      host: the address that the server listens on; it decides which names are answered to.
      warm: whether to compile the programs of all sizes in the background, from the start.

    Returns:
      An ASGI application:
        GET  /                    the page; /page/NAME its files
        GET  /api/studio          classes, sizes, limits
        GET  /api/exemplars       the ready exemplars
        GET  /api/layouts?size=I  the ready layouts at size I of /api/studio
        POST /api/layout          form: label (a file) → the label map at a size of the canvas
        POST /api/exemplar        form: photo, label (files; label may be left out) → the exemplar
        POST /api/picture         form as `parse_job` → `answer_json`
      Whatever cannot be done is answered with a status of 4xx or 500 and {"error": one line}.
    """
    # The model, and what it holds in memory, serve one request at a time; the others wait in their order.
    turn = asyncio.Lock()
    # The examples do not need the model, and the page shows them while it compiles.
    shelf = asyncio.Lock()

    async def on_turn(function, *arguments):
        async with turn:
            return await _in_thread(function, *arguments)

    async def on_shelf(function, *arguments):
        async with shelf:
            return await _in_thread(function, *arguments)

    async def about(request):
        return JSONResponse(_about(studio))

    async def exemplars(request):
        return JSONResponse(await on_shelf(_exemplars, studio))

    async def layouts(request):
        index = request.query_params.get("size", "")
        if index not in map(str, range(len(studio.sizes))):
            raise UserError(f"size={index[:20]} must be one of 0..{len(studio.sizes) - 1}")
        return JSONResponse(await on_shelf(_layouts, studio, studio.sizes[int(index)]))

    async def layout(request):
        data = file_of(await _form(request), "label")
        label, (h, w) = await on_shelf(studio.read_layout, data)
        return JSONResponse(layout_json(label) | {"given": {"width": w, "height": h}})

    async def exemplar(request):
        form = await _form(request)
        photo, label = file_of(form, "photo"), file_of(form, "label", required=False)
        found = await on_turn(studio.read_exemplar, photo, label)
        return JSONResponse(exemplar_json(found) | {"guessed": label is None})

    async def picture(request):
        form = await _form(request)
        async with turn:
            # Whoever asked may have asked anew while this request waited.
            if await request.is_disconnected():
                return Response(status_code=499)
            return JSONResponse(await _in_thread(_picture, studio, form))

    async def index(request):
        return FileResponse(PAGE / "index.html")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        task = asyncio.create_task(_warm(studio, on_shelf, on_turn)) if warm else None
        yield
        if task is not None:
            task.cancel()

    app = Starlette(
        routes=[
            Route("/", index),
            Mount("/page", StaticFiles(directory=PAGE)),
            Route("/api/studio", about),
            Route("/api/exemplars", exemplars),
            Route("/api/layouts", layouts),
            Route("/api/layout", layout, methods=["POST"]),
            Route("/api/exemplar", exemplar, methods=["POST"]),
            Route("/api/picture", picture, methods=["POST"]),
        ],
        exception_handlers={UserError: _wrong_input, HTTPException: _refused, Exception: _unknown},
        lifespan=lifespan,
    )
    return Guard(app, host)


async def _warm(studio, on_shelf, on_turn):
    try:
        await on_shelf(_exemplars, studio)
    except Exception:
        _LOG.exception("the examples cannot be read; photos and label maps of your own can")
    # A photo of the examples' shape at every size first; mixing takes a few small programs more.
    for exemplars in (1, 2):
        for size in studio.sizes:
            try:
                await on_turn(studio.warm, size, exemplars)
            except UserError as error:
                _LOG.warning("%s", error)
                return
            except Exception:
                _LOG.exception("compiling ahead failed; pictures are compiled when they are asked for")
                return


def _about(studio):
    classes = studio.classes
    return {
        "classes": list(classes.names),
        "palette": classes.palette_array.tolist(),
        "sizes": [{"width": w, "height": h} for h, w in studio.sizes],
        "maxExemplars": MAX_EXEMPLARS,
        "maxBytes": MAX_BODY,
        "model": f"{studio.model.config.data.name}, {studio.model.step:,} steps",
    }


def _picture(studio, form):
    return answer_json(studio.synthesize(parse_job(studio, form)))


def _exemplars(studio):
    return [{"name": name} | exemplar_json(exemplar) for name, exemplar in studio.examples[1]]


def _layouts(studio, size):
    return [{"name": name} | layout_json(label) for name, label in studio.example_layouts(size)]


async def _form(request):
    """A multipart form as a dict of bytes (files) and str (fields)."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UserError("the request is no multipart form: reload the page")
    async with request.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=100_000) as form:
        return {
            name: await value.read() if isinstance(value, UploadFile) else value
            for name, value in form.items()
        }


async def _in_thread(function, *arguments):
    """What a function returns, called in a thread that does not keep the program from ending."""
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def settle(setter, value):
        if not future.done():
            setter(value)

    def run():
        try:
            setter, value = future.set_result, function(*arguments)
        except BaseException as error:
            setter, value = future.set_exception, error
        # The loop may be closed if the program ends meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, setter, value)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return await future


def _line(status, message):
    return JSONResponse({"error": " ".join(str(message).split())}, status_code=status)


async def _wrong_input(request, error):
    return _line(422, error)


async def _refused(request, error):
    return _line(error.status_code, error.detail)


async def _unknown(request, error):
    if isinstance(error, TooLarge):
        raise error
    _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    return _line(500, _UNKNOWN)
