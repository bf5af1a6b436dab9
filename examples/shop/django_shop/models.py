"""The same tables as in `examples.shop.models`, which creates them."""

from __future__ import annotations

from django.db import models


class User(models.Model):
    """A customer."""

    name = models.TextField()
    email = models.TextField(unique=True)

    class Meta:
        """The table of another schema owner."""

        managed = False
        db_table = "users"

    def __str__(self) -> str:
        """The name."""
        return self.name


class Post(models.Model):
    """What a customer wrote about a purchase."""

    user = models.ForeignKey(User, models.CASCADE, related_name="posts")
    title = models.TextField()

    class Meta:
        """The table of another schema owner."""

        managed = False
        db_table = "posts"

    def __str__(self) -> str:
        """The title."""
        return self.title


class Order(models.Model):
    """A purchase; amounts are in cents."""

    user = models.ForeignKey(User, models.CASCADE)
    total_cents = models.IntegerField()
    status = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The table of another schema owner."""

        managed = False
        db_table = "orders"

    def __str__(self) -> str:
        """Number and state."""
        return f"{self.pk} {self.status}"
