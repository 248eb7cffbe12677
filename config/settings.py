"""Settings, all of them from the environment. docs/deploy.md lists the variables.

Without any variable set the settings are those of production: they ask for a secret key and speak HTTPS only.
"""

from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# Everything that Marrowloop writes lies under this folder.
DATA_DIR = Path(env.str("MARROWLOOP_DATA", default="") or BASE_DIR / "var").resolve()

# Weights files (.pt) that the lab has put there, for rounds to start from.
START_WEIGHTS_DIR = Path(env.str("MARROWLOOP_WEIGHTS", default="") or DATA_DIR / "start-weights")

# Folders of this machine under which leads may register folders of slides, to be read where they lie.
SLIDE_ROOTS = [Path(root).resolve() for root in env.list("MARROWLOOP_SLIDE_ROOTS", default=[]) if root]

DEBUG = False
HTTPS = env.bool("MARROWLOOP_HTTPS", default=True)
ALLOWED_HOSTS = env.list("MARROWLOOP_HOSTS", default=["localhost", "127.0.0.1"])
CSRF_TRUSTED_ORIGINS = env.list("MARROWLOOP_ORIGINS", default=[])

# `make demo` keeps its key beside its data, so that manage.py works on them without further ado.
KEY_FILE = DATA_DIR / "secret-key"
SECRET_KEY = env.str("MARROWLOOP_SECRET_KEY", default="") or (
    KEY_FILE.read_text(encoding="utf-8").strip() if KEY_FILE.is_file() else ""
)
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "MARROWLOOP_SECRET_KEY is not set: give a long random string that stays the same between starts "
        '(python -c "import secrets; print(secrets.token_urlsafe(50))").'
    )

INSTALLED_APPS = [
    "annotation",
    "inference",
    "training",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "csp",
    "axes",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
    "annotation.views.storage_away.StorageAwayMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database: SQLite embedded, PostgreSQL by DATABASE_URL ---
DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'marrowloop.sqlite3'}")
}
DATABASES["default"]["CONN_MAX_AGE"] = 600
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets readers go on while one writes; IMMEDIATE takes the write lock when a transaction starts, so that two
    # writers wait for each other instead of failing half-way.
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
    }
else:
    # Planning the editor's queries takes PostgreSQL longer than answering them: it plans them once a connection.
    prepared = {"server_side_binding": True, "prepare_threshold": 5}
    DATABASES["default"]["OPTIONS"] = prepared | DATABASES["default"].get("OPTIONS", {})
    DATABASES["default"]["ENGINE"] = "config.postgresql"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People ---
AUTH_USER_MODEL = "annotation.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "annotation.signed_in.UserBackend"]
SESSION_ENGINE = "annotation.signed_in"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = env.int("MARROWLOOP_SIGN_IN_TRIES", default=5)
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "annotation/locked_out.html"
AXES_ENABLE_ACCESS_FAILURE_LOG = False

# --- Safety ---
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("MARROWLOOP_BEHIND_PROXY", False) else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]  # slides are never held in memory
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "uploads"
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 200
# A file that is larger than a chunk goes up in chunks; a proxy must let a request of this size through.
UPLOAD_CHUNK_BYTES = 1024 * env.int("MARROWLOOP_UPLOAD_CHUNK_KIB", default=8192)
UPLOAD_DAYS = env.int("MARROWLOOP_UPLOAD_DAYS", default=7)

# --- Files ---
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
S3_BUCKET = env.str("MARROWLOOP_S3_BUCKET", default="")
S3_ENDPOINT = env.str("MARROWLOOP_S3_ENDPOINT", default="")
# Seconds that a job goes on asking a storage that does not answer.
S3_WAIT = env.float("MARROWLOOP_S3_WAIT", default=300.0)
# Copies of stored files on this machine, where storage is remote.
CACHE_BYTES = int(env.float("MARROWLOOP_CACHE_GB", default=50.0) * 1e9)
STORAGES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": DATA_DIR / "storage", "base_url": None},
    },
    "staticfiles": {"BACKEND": "config.static.ModuleStaticFilesStorage"},
}
if S3_BUCKET:
    S3_CA = env.str("MARROWLOOP_S3_CA", default="")
    if S3_CA and not Path(S3_CA).is_file():
        raise ImproperlyConfigured(f"MARROWLOOP_S3_CA: there is no file {S3_CA}.")
    if S3_ENDPOINT and not S3_ENDPOINT.startswith(("http://", "https://")):
        raise ImproperlyConfigured(f"MARROWLOOP_S3_ENDPOINT: {S3_ENDPOINT} does not begin with http:// or https://.")
    # Access keys come as boto3 finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.
    STORAGES["default"] = {
        "BACKEND": "annotation.services.s3.RemoteStorage",
        "OPTIONS": {
            "bucket_name": S3_BUCKET,
            "endpoint_url": S3_ENDPOINT or None,
            "region_name": env.str("MARROWLOOP_S3_REGION", default="") or None,
            "location": env.str("MARROWLOOP_S3_PREFIX", default="").strip("/"),
            "addressing_style": "path" if env.bool("MARROWLOOP_S3_PATH_STYLE", default=bool(S3_ENDPOINT)) else "auto",
            "verify": S3_CA or None,
            "timeout": env.float("MARROWLOOP_S3_TIMEOUT", default=10.0),
        },
    }
elif S3_ENDPOINT:
    raise ImproperlyConfigured("MARROWLOOP_S3_ENDPOINT is set, but MARROWLOOP_S3_BUCKET is not.")

# --- Jobs: filesystem broker embedded, Redis or RabbitMQ by CELERY_BROKER_URL ---
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="filesystem://localhost")
if CELERY_BROKER_URL.startswith("filesystem://"):
    BROKER_DIR = DATA_DIR / "broker"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(BROKER_DIR / "messages"),
        "data_folder_out": str(BROKER_DIR / "messages"),
        "control_folder": str(BROKER_DIR / "control"),
    }
    for folder in ("messages", "control"):
        (BROKER_DIR / folder).mkdir(parents=True, exist_ok=True)
FILE_UPLOAD_TEMP_DIR.mkdir(parents=True, exist_ok=True)
CELERY_TASK_DEFAULT_QUEUE = "short"
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE = env.str("TZ", default="UTC")
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
# A running job whose worker has not been heard of for so long is started again.
JOB_LOST_SECONDS = env.int("MARROWLOOP_JOB_LOST_SECONDS", default=60)
CELERY_BEAT_SCHEDULE = {
    "sweep-jobs": {"task": "jobs.sweep", "schedule": 20.0},
    "fire-schedules": {"task": "schedules.fire", "schedule": 60.0, "options": {"expire_seconds": 60}},
    "throw-uploads-away": {"task": "uploads.throw_away", "schedule": 3600.0, "options": {"expire_seconds": 3600}},
    "look-into-folders": {"task": "folders.look", "schedule": 60.0, "options": {"expire_seconds": 60}},
    "mail-notices": {"task": "notices.mail", "schedule": 60.0, "options": {"expire_seconds": 60}},
    "sweep-webhooks": {"task": "webhooks.sweep", "schedule": 20.0, "options": {"expire_seconds": 20}},
}

# --- The API (docs/api.md) ---
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["annotation.api.tokens.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["annotation.api.tokens.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "annotation.api.schema.Description",
    "EXCEPTION_HANDLER": "annotation.api.errors.as_json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Marrowloop",
    "DESCRIPTION": "Projects, tiles, annotations, tasks, rounds and models of a Marrowloop server. See docs/api.md.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/",
    "ENUM_NAME_OVERRIDES": {
        "TaskKind": "annotation.models.TaskKind.choices",
        "AuthorKind": "annotation.models.AuthorKind.choices",
        "AdditionKind": "annotation.services.annotations.Outside.choices",
        "DetectorKind": "inference.models.DetectorKind.choices",
        "TaskState": "annotation.models.TaskState.choices",
        "BatchState": "annotation.models.BatchState.choices",
        "RoundState": "training.models.RoundState.choices",
        "EvaluationPart": "training.models.Part.choices",
        "JobState": "annotation.models.JobState.choices",
    },
}

# --- Webhooks: to no host unless the lab names it (annotation/services/webhooks.py) ---
WEBHOOK_HOSTS = env.list("MARROWLOOP_WEBHOOK_HOSTS", default=[])

# --- E-mail: none unless the lab names its server ---
MAIL_URL = env.str("MARROWLOOP_MAIL_URL", default="")
MAIL_ON = bool(MAIL_URL)
vars().update(env.email_url_config(MAIL_URL or "dummymail://"))
EMAIL_TIMEOUT = 10  # seconds
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("MARROWLOOP_MAIL_FROM", default="marrowloop@localhost")

LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
SILENCED_SYSTEM_CHECKS = ["security.W021"] if not HTTPS else []
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("MARROWLOOP_LOG_LEVEL", default="WARNING")},
}
