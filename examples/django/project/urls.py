"""Which view answers which address."""

from __future__ import annotations

from django.urls import path
from smoothing import views

urlpatterns = [
    path("", views.page),
    path("data/<str:name>", views.data),
    path("jobs", views.jobs),
    path("jobs/<str:id>", views.job),
    path("jobs/<str:id>/events", views.events),
]
