"""Django's settings, from the shop's."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict

from examples.shop.settings import Settings

SHOP = Settings.from_environment()
_PARTS = conninfo_to_dict(SHOP.dsn)

SECRET_KEY = "the shop keeps no secrets"  # noqa: S105 - and signs nothing
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "examples.shop.django_shop.urls"
INSTALLED_APPS = ["examples.shop.django_shop"]
MIDDLEWARE = ["examples.shop.django_shop.own_hosts.OwnHosts", "examples.shop.django_shop.views.Busy"]
USE_TZ = False
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _PARTS.pop("dbname"),
        "USER": _PARTS.pop("user", ""),
        "PASSWORD": _PARTS.pop("password", ""),
        "HOST": _PARTS.pop("host", ""),
        "PORT": _PARTS.pop("port", ""),
        "OPTIONS": {
            **_PARTS,
            "pool": {
                "name": "shop",
                "min_size": 0,
                "max_size": SHOP.pool_size + SHOP.max_overflow,
                "timeout": SHOP.pool_timeout,
                "max_lifetime": SHOP.pool_recycle,
            },
        },
    }
}
