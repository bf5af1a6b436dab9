"""The shop's addresses."""

from __future__ import annotations

from django.urls import path

from examples.shop.django_shop import views

urlpatterns = [
    path("users/<int:user_id>", views.show_user),
    path("reports/sales", views.sales),
    path("fixed/reports/sales", views.sales_fixed),
    path("feed", views.feed),
    path("fixed/feed", views.feed_fixed),
    path("checkout/<int:user_id>", views.checkout),
    path("fixed/checkout/<int:user_id>", views.checkout_fixed),
    path("redeem/<int:user_id>", views.redeem),
    path("fixed/redeem/<int:user_id>", views.redeem_fixed),
    path("cart/<int:user_id>", views.cart),
    path("fixed/cart/<int:user_id>", views.cart_fixed),
    path("profile/<int:user_id>", views.profile),
    path("fixed/profile/<int:user_id>", views.profile_fixed),
    path("dispatch", views.dispatch),
    path("fixed/dispatch", views.dispatch_fixed),
]
