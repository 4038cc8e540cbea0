"""Settings: no database, no sessions, nothing signed."""

from __future__ import annotations

import os
import secrets

# Signs nothing here; a project of yours that does keeps one that stays.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(32)
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
INSTALLED_APPS = ["smoothing"]
# Without cookies nobody can be made to post in another's name: no CSRF middleware.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "smoothing.middleware.Refusals",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
APPEND_SLASH = False
TIME_ZONE = "UTC"
USE_TZ = True
