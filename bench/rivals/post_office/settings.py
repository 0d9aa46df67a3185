"""The Django project. Batches are large, because each opens its connections anew."""

import os

_THREADS = int(os.environ.get("CONNECTIONS", "10"))

SECRET_KEY = "of a bench"  # noqa: S105 - nothing is signed with it
INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": os.environ["POSTGRESQL_FOLDER"],
        "CONN_MAX_AGE": None,
    }
}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
EMAIL_BACKEND = "post_office.EmailBackend"
EMAIL_HOST = os.environ["SMTP_HOST"]
EMAIL_PORT = int(os.environ["SMTP_PORT"])
EMAIL_USE_TLS = "SMTP_PASSWORD" in os.environ
EMAIL_HOST_USER = os.environ.get("SMTP_LOGIN", "")
EMAIL_HOST_PASSWORD = os.environ.get("SMTP_PASSWORD", "")
POST_OFFICE = {"BATCH_SIZE": 500, "THREADS_PER_PROCESS": _THREADS, "LOG_LEVEL": 1}
