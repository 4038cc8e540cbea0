"""Errors of rabbitry as answers."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from web import requests

from broker.errors import RabbitryError


class Refusals:
    """Answers an error of rabbitry with its sentence, and the status that belongs to it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponse | None:
        """Return the answer, or None for what is not ours."""
        if not isinstance(exc, RabbitryError):
            return None
        status, document = requests.refusal(exc)
        headers = {"Retry-After": "5"} if status == 503 else None
        return JsonResponse(document, status=status, headers=headers)
