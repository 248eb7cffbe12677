"""A pytest plugin, loaded before Django reads its settings: the environment that the tests run in."""

import os
import tempfile

os.environ.setdefault("MARROWLOOP_SECRET_KEY", "only-for-tests-" + "x" * 50)
os.environ["MARROWLOOP_HTTPS"] = "0"
os.environ["MARROWLOOP_DATA"] = tempfile.mkdtemp(prefix="marrowloop-tests-")
os.environ.setdefault("MARROWLOOP_LOG_LEVEL", "ERROR")
