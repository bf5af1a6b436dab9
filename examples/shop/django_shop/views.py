"""
The shop's pages. Each way to run out of connections is followed by its repaired form (``/fixed/...``).

A request has one connection, from its first query to its end.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.db.models import Sum
from django.db.utils import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from psycopg_pool import PoolTimeout

from examples.shop.django_shop.models import Order, User
from examples.shop.django_shop.settings import SHOP
from examples.shop.payments import Payments

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

PRICE_CENTS = 1999
FEED_LENGTH = 20
# The number of the lock that whoever dispatches has.
DISPATCH = 42

_LAST_ORDER = "SELECT total_cents FROM orders WHERE user_id = %s ORDER BY created_at DESC LIMIT 1"
_ORDER_COUNT = "SELECT count(*) FROM orders WHERE user_id = %s"

payments = Payments(SHOP.payment_url)
carts: dict[int, BaseDatabaseWrapper] = {}


class Busy:
    """Answers requests that got no connection."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Let the request pass."""
        return self._get_response(request)

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Turn the pool's timeout into 503."""
        if isinstance(error, OperationalError) and isinstance(error.__cause__, PoolTimeout):
            return JsonResponse({"error": "busy"}, status=503)
        return None


def show_user(_request: HttpRequest, user_id: int) -> HttpResponse:
    """Healthy: one indexed query."""
    return JsonResponse({"name": User.objects.get(pk=user_id).name})


def sales(_request: HttpRequest) -> HttpResponse:
    """A slow query while a customer waits."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(total_cents), pg_sleep(%s) FROM orders", [SHOP.slow_seconds])
        (cents, _) = cursor.fetchone()
    return JsonResponse({"cents": cents})


def sales_fixed(_request: HttpRequest) -> HttpResponse:
    """The part that the customer looks at, through an index."""
    yesterday = datetime.now() - timedelta(days=1)  # noqa: DTZ005 - the column has no zone either
    return JsonResponse(Order.objects.filter(created_at__gte=yesterday).aggregate(cents=Sum("total_cents")))


def feed(_request: HttpRequest) -> HttpResponse:
    """N+1: one query for the users, then one for the posts of each."""
    users = User.objects.order_by("-id")[:FEED_LENGTH]
    return JsonResponse({user.name: [post.title for post in user.posts.all()] for user in users})


def feed_fixed(_request: HttpRequest) -> HttpResponse:
    """The same page from two queries."""
    users = User.objects.order_by("-id").prefetch_related("posts")[:FEED_LENGTH]
    return JsonResponse({user.name: [post.title for post in user.posts.all()] for user in users})


def checkout(_request: HttpRequest, user_id: int) -> HttpResponse:
    """A transaction that stays open while the payment provider thinks."""
    with transaction.atomic():
        order = Order.objects.create(user_id=user_id, total_cents=PRICE_CENTS, status="new")
        receipt = payments.charge(order.total_cents)
        order.status = "paid"
        order.save()
    return JsonResponse({"receipt": receipt})


def checkout_fixed(_request: HttpRequest, user_id: int) -> HttpResponse:
    """The provider first, then one short transaction."""
    receipt = payments.charge(PRICE_CENTS)
    Order.objects.create(user_id=user_id, total_cents=PRICE_CENTS, status="paid")
    return JsonResponse({"receipt": receipt})


def redeem(_request: HttpRequest, user_id: int) -> HttpResponse:
    """A customer's row stays locked while the payment provider thinks."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user_id)
        receipt = payments.charge(-PRICE_CENTS)
        Order.objects.create(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed")
    return JsonResponse({"receipt": receipt})


def redeem_fixed(_request: HttpRequest, user_id: int) -> HttpResponse:
    """The provider first; the row is locked for as long as it takes to write."""
    receipt = payments.charge(-PRICE_CENTS)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user_id)
        Order.objects.create(user_id=user_id, total_cents=-PRICE_CENTS, status="redeemed")
    return JsonResponse({"receipt": receipt})


def cart(_request: HttpRequest, user_id: int) -> HttpResponse:
    """A connection kept for the customer's next visit; it is never closed when there is none."""
    kept = carts.setdefault(user_id, connection.copy())
    with kept.cursor() as cursor:
        cursor.execute(_LAST_ORDER, [user_id])
        (cents,) = cursor.fetchone()
    return JsonResponse({"again": cents})


def cart_fixed(_request: HttpRequest, user_id: int) -> HttpResponse:
    """The request's own connection, which goes back with the request."""
    with connection.cursor() as cursor:
        cursor.execute(_LAST_ORDER, [user_id])
        (cents,) = cursor.fetchone()
    return JsonResponse({"again": cents})


def profile(_request: HttpRequest, user_id: int) -> HttpResponse:
    """A second connection, checked out while the first is held."""
    name = User.objects.get(pk=user_id).name
    with closing(connection.copy()) as second, second.cursor() as cursor:
        cursor.execute(_ORDER_COUNT, [user_id])
        (orders,) = cursor.fetchone()
    return JsonResponse({"name": name, "orders": orders})


def profile_fixed(_request: HttpRequest, user_id: int) -> HttpResponse:
    """Both questions on one connection."""
    user = User.objects.get(pk=user_id)
    return JsonResponse({"name": user.name, "orders": user.order_set.count()})


def dispatch(_request: HttpRequest) -> HttpResponse:
    """One dispatch at a time: by a lock of the connection, which outlives the transaction and is not released."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [DISPATCH])
        return JsonResponse({"open": Order.objects.filter(status="new").count()})


def dispatch_fixed(_request: HttpRequest) -> HttpResponse:
    """The same lock, which ends with the transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [DISPATCH])
        return JsonResponse({"open": Order.objects.filter(status="new").count()})
