"""Every address of the API, below /api/."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import IsAuthenticated

from annotation.api import annotations, batches, exports, imports, jobs, projects, webhooks
from annotation.api.tokens import TokenAuthentication
from annotation.views.api_page import api_page
from training.api import models, rounds

description = SpectacularAPIView.as_view(
    authentication_classes=[TokenAuthentication, SessionAuthentication], permission_classes=[IsAuthenticated]
)

urlpatterns = [
    path("", api_page, name="api_page"),
    path("schema/", description, name="api_schema"),
    path("projects/", projects.Projects.as_view(), name="api_projects"),
    path("projects/<int:pk>/", projects.OneProject.as_view(), name="api_project"),
    path("projects/<int:pk>/slides/", projects.Slides.as_view(), name="api_slides"),
    path("projects/<int:pk>/tiles/", projects.Tiles.as_view(), name="api_tiles"),
    path("projects/<int:pk>/batches/", batches.Batches.as_view(), name="api_batches"),
    path("projects/<int:pk>/annotations/", annotations.Annotations.as_view(), name="api_annotations"),
    path("projects/<int:pk>/rounds/", rounds.Rounds.as_view(), name="api_rounds"),
    path("projects/<int:pk>/models/", models.Models.as_view(), name="api_models"),
    path("projects/<int:pk>/events/", projects.Events.as_view(), name="api_events"),
    path("projects/<int:pk>/exports/", exports.Exports.as_view(), name="api_exports"),
    path("projects/<int:pk>/imports/", imports.Imports.as_view(), name="api_imports"),
    path("projects/<int:pk>/webhooks/", webhooks.Webhooks.as_view(), name="api_webhooks"),
    path("slides/<int:pk>/", projects.OneSlide.as_view(), name="api_slide"),
    path("tiles/<int:pk>/", projects.OneTile.as_view(), name="api_tile"),
    path("tiles/<int:pk>/image/", projects.TileImage.as_view(), name="api_tile_image"),
    path("tiles/<int:pk>/annotations/", annotations.AddAnnotation.as_view(), name="api_annotation_add"),
    path("annotations/<int:pk>/", annotations.OneAnnotation.as_view(), name="api_annotation"),
    path("batches/<int:pk>/", batches.OneBatch.as_view(), name="api_batch"),
    path("batches/<int:pk>/close/", batches.CloseBatch.as_view(), name="api_batch_close"),
    path("batches/<int:pk>/tasks/", batches.Tasks.as_view(), name="api_tasks"),
    path("batches/<int:pk>/next/", batches.NextTask.as_view(), name="api_task_next"),
    path("tasks/<int:pk>/", batches.OneTask.as_view(), name="api_task"),
    path("tasks/<int:pk>/draft/", batches.TaskDraft.as_view(), name="api_task_draft"),
    path("tasks/<int:pk>/submit/", batches.SubmitTask.as_view(), name="api_task_submit"),
    path("tasks/<int:pk>/skip/", batches.SkipTask.as_view(), name="api_task_skip"),
    path("rounds/<int:pk>/", rounds.OneRound.as_view(), name="api_round"),
    path("rounds/<int:pk>/release/", rounds.ReleaseRound.as_view(), name="api_round_release"),
    path("rounds/<int:pk>/close/", rounds.CloseRound.as_view(), name="api_round_close"),
    path("rounds/<int:pk>/retry/", rounds.RetryRound.as_view(), name="api_round_retry"),
    path("rounds/<int:pk>/cancel/", rounds.CancelRound.as_view(), name="api_round_cancel"),
    path("jobs/<int:pk>/", jobs.OneJob.as_view(), name="api_job"),
    path("jobs/<int:pk>/cancel/", jobs.CancelJob.as_view(), name="api_job_cancel"),
    path("exports/<int:pk>/", exports.OneExport.as_view(), name="api_export"),
    path("exports/<int:pk>/file/", exports.ExportFile.as_view(), name="api_export_file"),
    path("imports/<int:pk>/", imports.OneImport.as_view(), name="api_import"),
    path("imports/<int:pk>/try/", imports.TryImport.as_view(), name="api_import_try"),
    path("imports/<int:pk>/write/", imports.WriteImport.as_view(), name="api_import_write"),
    path("webhooks/<int:pk>/", webhooks.OneWebhook.as_view(), name="api_webhook"),
    path("webhooks/<int:pk>/test/", webhooks.TestWebhook.as_view(), name="api_webhook_test"),
    path("webhooks/<int:pk>/deliveries/", webhooks.Deliveries.as_view(), name="api_deliveries"),
    path("models/<int:pk>/", models.OneModel.as_view(), name="api_model"),
    path("models/<int:pk>/weights/", models.Weights.as_view(), name="api_weights"),
]
