"""The shop in Django, on its own ORM and its pool option."""
