"""A user's own tokens for the API."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from annotation.access import get_token_for
from annotation.forms import TokenForm
from annotation.models import Scope
from annotation.services.tokens import TooManyTokens, make_token, revoke_token
from annotation.views.request import SignedIn


def _page(request: SignedIn, form: TokenForm, *, secret: str = "", status: int = 200) -> HttpResponse:
    context = {
        "tokens": request.user.api_tokens.all(),
        "form": form,
        "secret": secret,
        "today": timezone.localdate(),
    }
    return render(request, "annotation/tokens.html", context, status=status)


@require_GET
def tokens(request: SignedIn) -> HttpResponse:
    return _page(request, TokenForm())


@require_POST
@never_cache
def token_create(request: SignedIn) -> HttpResponse:
    """The answer is the one page that ever shows the token."""
    form = TokenForm(request.POST)
    if form.is_valid():
        data = form.cleaned_data
        try:
            _, secret = make_token(
                user=request.user, name=data["name"], scope=Scope(data["scope"]), expires_on=data["expires_on"]
            )
        except TooManyTokens as error:
            form.add_error(None, str(error))
        else:
            return _page(request, TokenForm(), secret=secret)
    return _page(request, form, status=422)


@require_POST
def token_revoke(request: SignedIn, pk: int) -> HttpResponse:
    token = get_token_for(request.user, pk)
    if revoke_token(token=token, user=request.user):
        messages.success(request, f"The token {token.name} is revoked: it works no longer.")
    return redirect("tokens")
