from tests.config.test_settings import manage

READ = """
from django.conf import settings
from django.core.mail import get_connection
mail = get_connection()
print(settings.MAIL_ON, type(mail).__module__, getattr(mail, "host", ""), getattr(mail, "port", ""))
print(getattr(mail, "username", ""), getattr(mail, "password", ""), getattr(mail, "use_tls", ""))
print(settings.DEFAULT_FROM_EMAIL)
"""


def read(tmp_path, **environment):
    done = manage(tmp_path, "shell", "--verbosity", "0", "-c", READ, MARROWLOOP_SECRET_KEY="x" * 50, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_without_the_labs_mail_server_no_mail_can_leave(tmp_path):
    assert read(tmp_path)[:2] == ["False", "django.core.mail.backends.dummy"]


def test_the_labs_mail_server_is_one_address(tmp_path):
    told = read(
        tmp_path,
        MARROWLOOP_MAIL_URL="smtp+tls://marrow%40lab:a%2Fb@mail.lab:587",
        MARROWLOOP_MAIL_FROM="marrow@lab.example",
    )
    assert told[:4] == ["True", "django.core.mail.backends.smtp", "mail.lab", "587"]
    assert told[4:] == ["marrow@lab", "a/b", "True", "marrow@lab.example"]
