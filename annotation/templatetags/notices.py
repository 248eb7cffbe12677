"""What the page's head shows of a user's notices."""

from django import template

from annotation.access import notices_of
from annotation.models import User

register = template.Library()


@register.simple_tag
def unread_notices(user: User) -> int:
    return notices_of(user).filter(read_at__isnull=True).count()
