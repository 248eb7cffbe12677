"""What a web process must never load."""

import subprocess
import sys

from django.conf import settings

PROGRAM = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
import config.urls, config.wsgi
heavy = {"boto3", "botocore", "torch", "torchvision", "ultralytics", "openvino", "onnx", "cv2", "matplotlib"}
print(",".join(sorted(heavy & set(sys.modules))), end="")
"""


def test_the_urlconf_loads_neither_an_engine_nor_what_other_storage_needs():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=settings.BASE_DIR, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
