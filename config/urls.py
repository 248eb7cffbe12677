"""Every address of the application."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import path

from annotation.views import batches, editor, exports, jobs, members, slides, taxonomies
from training.views import cross_validations, model_files, model_imports, model_page, models, overview, rounds


@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """For a load balancer or a start script: the web process answers."""
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [
    path("", overview.home, name="home"),
    path("health/", health, name="health"),
    path("sign-in/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", auth_views.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("projects/new/", members.project_new, name="project_new"),
    path("projects/<int:pk>/", overview.project, name="project"),
    path("projects/<int:pk>/slides/", slides.project_slides, name="project_slides"),
    path("projects/<int:pk>/slides/import/", slides.slides_import, name="slides_import"),
    path("projects/<int:pk>/rounds/", rounds.project_rounds, name="project_rounds"),
    path("projects/<int:pk>/rounds/new/", rounds.round_new, name="round_new"),
    path(
        "projects/<int:pk>/cross-validations/",
        cross_validations.project_cross_validations,
        name="project_cross_validations",
    ),
    path(
        "projects/<int:pk>/cross-validations/new/",
        cross_validations.cross_validation_new,
        name="cross_validation_new",
    ),
    path("projects/<int:pk>/models/", models.project_models, name="project_models"),
    path("projects/<int:pk>/models/import/", model_imports.model_import, name="model_import"),
    path("projects/<int:pk>/jobs/", jobs.project_jobs, name="project_jobs"),
    path("projects/<int:pk>/exports/", exports.project_exports, name="project_exports"),
    path("projects/<int:pk>/exports/new/", exports.export_create, name="export_create"),
    path("projects/<int:pk>/members/", members.project_members, name="project_members"),
    path("projects/<int:pk>/members/add/", members.member_add, name="member_add"),
    path("projects/<int:pk>/taxonomy/", taxonomies.project_taxonomy, name="project_taxonomy"),
    path("projects/<int:pk>/taxonomy/change/", taxonomies.taxonomy_change, name="taxonomy_change"),
    path("projects/<int:pk>/classes/<int:number>/examples/", taxonomies.class_examples, name="class_examples"),
    path("members/<int:pk>/change/", members.member_change, name="member_change"),
    path("members/<int:pk>/remove/", members.member_remove, name="member_remove"),
    path("patients/<int:pk>/lock/", slides.patient_lock, name="patient_lock"),
    path("slides/<int:pk>/", slides.slide, name="slide"),
    path("slides/<int:pk>/overview/", slides.slide_overview, name="slide_overview"),
    path("slides/<int:pk>/thumbnail/", slides.slide_thumbnail, name="slide_thumbnail"),
    path("tiles/<int:pk>/", slides.tile, name="tile"),
    path("tiles/<int:pk>/image/", slides.tile_image, name="tile_image"),
    path("tiles/<int:pk>/neighbourhood/", slides.tile_neighbourhood, name="tile_neighbourhood"),
    path("tiles/<int:pk>/crop/", slides.tile_crop, name="tile_crop"),
    path("boxes/<int:pk>/crop/", slides.box_crop, name="box_crop"),
    path("batches/<int:pk>/", batches.batch, name="batch"),
    path("batches/<int:pk>/close/", batches.batch_close, name="batch_close"),
    path("batches/<int:pk>/annotate/", editor.batch_annotate, name="batch_annotate"),
    path("batches/<int:pk>/next/", editor.batch_next, name="batch_next"),
    path("batches/<int:pk>/previous/", editor.batch_previous, name="batch_previous"),
    path("tasks/<int:pk>/", editor.task, name="task"),
    path("tasks/<int:pk>/draft/", editor.task_draft, name="task_draft"),
    path("tasks/<int:pk>/submit/", editor.task_submit, name="task_submit"),
    path("tasks/<int:pk>/skip/", editor.task_skip, name="task_skip"),
    path("preferences/", editor.preferences, name="preferences"),
    path("rounds/<int:pk>/", rounds.round_, name="round"),
    path("rounds/<int:pk>/close/", rounds.round_close, name="round_close"),
    path("rounds/<int:pk>/refresh/", rounds.round_refresh, name="round_refresh"),
    path("rounds/<int:pk>/retry/", rounds.round_retry, name="round_retry"),
    path("rounds/<int:pk>/cancel/", rounds.round_cancel, name="round_cancel"),
    path("models/<int:pk>/", model_page.model, name="model"),
    path("models/<int:pk>/evaluate/", model_page.model_evaluate, name="model_evaluate"),
    path("models/<int:pk>/current/", models.model_make_current, name="model_make_current"),
    path("models/<int:pk>/weights/", model_files.model_weights, name="model_weights"),
    path("models/<int:pk>/download/openvino.zip", model_files.model_openvino, name="model_openvino"),
    path("models/<int:pk>/download/model.onnx", model_files.model_onnx, name="model_onnx"),
    path("models/<int:pk>/export/", model_files.model_export, name="model_export"),
    path("models/<int:pk>/download/table.csv", model_files.model_table, name="model_table"),
    path("models/<int:pk>/download/<slug:name>.<slug:file_format>", model_files.model_figure, name="model_figure"),
    path("cross-validations/<int:pk>/", cross_validations.cross_validation, name="cross_validation"),
    path("cross-validations/<int:pk>/retry/", cross_validations.cross_validation_retry, name="cross_validation_retry"),
    path(
        "cross-validations/<int:pk>/table.csv",
        cross_validations.cross_validation_table,
        name="cross_validation_table",
    ),
    path("jobs/<int:pk>/", jobs.job, name="job"),
    path("jobs/<int:pk>/cancel/", jobs.job_cancel, name="job_cancel"),
    path("jobs/<int:pk>/retry/", jobs.job_retry, name="job_retry"),
    path("exports/<int:pk>/download/", exports.export_download, name="export_download"),
]
