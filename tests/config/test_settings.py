import os
import subprocess
import sys

from django.conf import settings


def manage(tmp_path, *arguments, **environment):
    """Run manage.py with these variables of ours and no others; without any, the settings are those of production."""
    ours = ("MARROWLOOP_", "DATABASE_URL", "CELERY_", "DJANGO_")
    rest = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=rest | {"MARROWLOOP_DATA": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
    )


def test_it_refuses_to_start_without_a_secret_key(tmp_path):
    done = manage(tmp_path, "check")
    assert done.returncode != 0
    assert "MARROWLOOP_SECRET_KEY is not set" in done.stderr


def test_production_passes_every_check_of_deployment(tmp_path):
    key = "".join(chr(33 + (7 * place) % 90) for place in range(60))
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", MARROWLOOP_SECRET_KEY=key)
    assert done.returncode == 0, done.stderr


def test_models_and_migrations_agree(tmp_path):
    done = manage(tmp_path, "makemigrations", "--check", "--dry-run", MARROWLOOP_SECRET_KEY="x" * 50)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_policy_of_the_content_allows_nothing_inline_and_no_other_host(client):
    policy = client.get("/health/")["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-" not in policy
    assert "http" not in policy


def test_pages_may_not_be_framed_or_sniffed(client):
    response = client.get("/health/")
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"


def test_the_key_that_the_demo_keeps_beside_its_data_is_enough(tmp_path):
    (tmp_path / "secret-key").write_text("kept-by-the-demo\n")
    done = manage(
        tmp_path, "shell", "--verbosity", "0", "-c", "from django.conf import settings; print(settings.SECRET_KEY)"
    )
    assert done.stdout.strip() == "kept-by-the-demo"
