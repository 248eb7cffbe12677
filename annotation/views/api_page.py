"""The API's description, to be browsed and tried."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation.views.request import SignedIn


@require_GET
def api_page(request: SignedIn) -> HttpResponse:
    return render(request, "annotation/api.html")
