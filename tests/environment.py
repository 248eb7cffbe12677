"""A pytest plugin, loaded before Django reads its settings: the environment that the tests run in."""

import atexit
import os
import shutil
import tempfile

# Each process of tests (`pytest -n 2`) loads this file for itself, and so has a folder of its own.
folder = tempfile.mkdtemp(prefix="marrowloop-tests-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)

os.environ.setdefault("MARROWLOOP_SECRET_KEY", "only-for-tests-" + "x" * 50)
os.environ["MARROWLOOP_HTTPS"] = "0"
os.environ["MARROWLOOP_DATA"] = folder
os.environ.setdefault("MARROWLOOP_LOG_LEVEL", "ERROR")

processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if processes > 1:
    # Whoever asks how many cores there are is told of this process's share: torch's threads wait for each other by
    # spinning, and two of them on the core that another process holds are many times slower than one.
    cores = max(1, (os.cpu_count() or 1) // processes)
    os.cpu_count = lambda: cores
    os.environ["OMP_NUM_THREADS"] = str(cores)
