"""Uploading a model made elsewhere."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from annotation.access import get_project_for, require_staff
from annotation.models import Role
from annotation.views.request import SignedIn
from inference.forms import ModelImportForm
from inference.services.model_imports import stage_model
from training.views.models import models_page


@require_POST
def model_import(request: SignedIn, pk: int) -> HttpResponse:
    project = get_project_for(request.user, pk, Role.LEAD)
    require_staff(request.user, "import a model: the file can run code")
    form = ModelImportForm(request.POST, request.FILES)
    if not form.is_valid():
        return models_page(request, project, form, status=422)
    data = form.cleaned_data
    job = stage_model(project=project, upload=data["file"], image_size=data["image_size"], user=request.user)
    messages.success(request, f"Importing {job.subject}. It does not become the current model by itself.")
    return redirect("project_models", pk)
