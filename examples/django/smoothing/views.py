"""Views: a job is handed over and answered at once; what it tells is a stream of events."""

from __future__ import annotations

from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from web import requests
from web.events import STREAM_HEADERS

from smoothing.calls import calls


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the page."""
    return HttpResponse(requests.PAGE.read_bytes(), content_type="text/html; charset=utf-8")


@require_GET
def data(request: HttpRequest, name: str) -> FileResponse:
    """Send one of the series that the page offers."""
    if name not in requests.SAMPLES:
        raise Http404
    return FileResponse((requests.DATA / name).open("rb"), content_type="text/csv")


@require_POST
def jobs(request: HttpRequest) -> JsonResponse:
    """Hand the CSV that is the body over to a job, and answer with its id."""
    body = requests.read_body(request, request.META.get("CONTENT_LENGTH"))
    order = requests.read_order(body, request.GET.dict())
    id = calls().submit("web.lowess", order.series, **order.options)
    return JsonResponse(
        {"id": id, "events": f"/jobs/{id}/events"}, status=202, headers={"Location": f"/jobs/{id}"}
    )


@require_http_methods(["GET", "DELETE"])
def job(request: HttpRequest, id: str) -> JsonResponse:
    """Tell how a job is, or give it up."""
    if request.method == "DELETE":
        return JsonResponse({"id": id, "given_up": calls().cancel(id)})
    return JsonResponse(calls().state(id))


@require_GET
def events(request: HttpRequest, id: str) -> StreamingHttpResponse:
    """Stream what is heard of a job."""
    after = requests.read_last_event(request.headers.get("Last-Event-ID"))
    return StreamingHttpResponse(calls().events(id, after=after), headers=STREAM_HEADERS)
