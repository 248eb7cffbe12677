"""The cache of stored files, with real processes that want the same and other files at once."""

import errno
import os
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.conf import settings

from annotation.services.file_cache import CacheFull, FileCache

PROCESS = """
import os, random, sys, time
from pathlib import Path
from annotation.services.file_cache import FileCache, placed

here = Path(sys.argv[1])
cache = FileCache(here / "cache", int(sys.argv[2]))

class Made:
    def __init__(self, name, size=100, gate=None):
        self.name, self.bytes, self.gate = name, size, gate
    def size(self):
        return self.bytes
    def write(self, folder):
        with (here / "downloads").open("a") as log:
            log.write(self.name + "\\n")
        with placed([self.name], folder)[0].open("wb") as file:
            file.write(self.name.encode() * (self.bytes // 2 // len(self.name)))
            file.flush()
            if self.gate:
                say("half")
                wait()
            file.write(b"." * (self.bytes - file.tell()))

def say(word):
    print(word, flush=True)

def wait():
    sys.stdin.readline()

def held(name, **options):
    return cache.held([name], Made(name, **options))
"""


class Made:
    """Files with made content; `asked` counts how often they were downloaded."""

    def __init__(self, name, size=100):
        self.name, self.bytes, self.asked = name, size, 0

    def size(self):
        return self.bytes

    def write(self, folder):
        self.asked += 1
        (folder / Path(self.name).name).write_bytes(b"x" * self.bytes)


class Process:
    """Another process with a cache on the same folder; it runs `code`."""

    def __init__(self, folder, code, most=1000):
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS + textwrap.dedent(code), str(folder), str(most)],
            cwd=settings.BASE_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self, word):
        assert self._process.stdout.readline().strip() == word

    def go_on(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def ends_well(self):
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache", 1000)


def names_in(cache):
    return sorted(path.name for path in cache.folder.rglob("*") if path.is_file())


def use(cache, name, size=100):
    made = Made(name, size)
    with cache.held([name], made) as (path,):
        assert path.stat().st_size == size
    return made.asked


def test_a_file_is_downloaded_once(cache):
    assert (use(cache, "a/0.svs"), use(cache, "a/0.svs")) == (1, 0)


def test_the_least_recently_used_go_first(cache):
    for number, name in enumerate(("a", "b", "c")):
        use(cache, name, 300)
        os.utime(cache._entry_of([name]), (number, number))
    use(cache, "a", 300)  # now the newest
    use(cache, "d", 300)
    assert names_in(cache) == ["a", "c", "d"]
    assert (use(cache, "c", 300), use(cache, "b", 300)) == (0, 1)


def test_a_file_larger_than_the_whole_bound_works_and_stays_until_another_comes(cache):
    use(cache, "a")
    assert (use(cache, "large", 5000), use(cache, "large", 5000)) == (1, 0)
    assert names_in(cache) == ["large"]
    use(cache, "b")
    assert names_in(cache) == ["b"]


def test_what_is_in_use_stays_even_over_the_bound_and_before_it_is_opened(cache):
    with ExitStack() as stack:
        paths = [stack.enter_context(cache.held([name], Made(name, 600)))[0] for name in ("a", "b", "c")]
        assert [len(path.read_bytes()) for path in paths] == [600, 600, 600]
    use(cache, "d", 600)
    assert names_in(cache) == ["d"]


def test_files_that_belong_together_lie_and_go_together(cache):
    class Series:
        def size(self):
            return 30

        def write(self, folder):
            (folder / "w.openvino").mkdir()
            for name in ("w.pt", "w.openvino/model.bin"):
                (folder / name).write_bytes(b"x" * 15)

    with cache.held(["weights/1/w.pt", "weights/1/w.openvino/model.bin"], Series()) as paths:
        assert paths[1] == paths[0].parent / "w.openvino" / "model.bin"
        assert [path.stat().st_size for path in paths] == [15, 15]
    use(cache, "other", 990)
    assert names_in(cache) == ["other"]


def test_a_download_that_breaks_leaves_nothing_and_the_next_one_works(cache):
    class Breaks(Made):
        def write(self, folder):
            super().write(folder)
            raise ConnectionError("broke off")

    with pytest.raises(ConnectionError, match="broke off"), cache.held(["a"], Breaks("a")):
        pass
    assert names_in(cache) == []
    assert use(cache, "a") == 1


@pytest.mark.parametrize("how", ["while writing", "beforehand"])
def test_a_full_disk_is_called_that_and_leaves_nothing(cache, how):
    class TooLarge(Made):
        def write(self, folder):
            (folder / "a").symlink_to("/dev/full")
            with (folder / "a").open("wb") as file:
                file.write(b"x" * self.bytes)

    size = 100 if how == "while writing" else 1 << 60
    words = "the disk of .*cache is full" if how == "while writing" else "1152921504.61 GB are needed on the disk of"
    with pytest.raises(CacheFull, match=words), cache.held(["a"], TooLarge("a", size)):
        pass
    assert names_in(cache) == []
    assert use(cache, "a") == 1


def test_a_file_that_somebody_has_deleted_from_the_folder_is_downloaded_again(cache):
    with cache.held(["a"], Made("a")) as (path,):
        path.unlink()
        assert use(cache, "a") == 1  # even while it is held: nobody waits for himself


def test_what_is_forgotten_is_gone_unless_somebody_uses_it(cache):
    with cache.held(["a"], Made("a")):
        cache.forget(["a"])
        assert names_in(cache) == ["a"]
    cache.forget(["a"])
    cache.forget(["never there"])
    assert names_in(cache) == []


def test_two_processes_that_want_the_same_file_download_it_once(tmp_path):
    first = Process(tmp_path, 'with held("slide", gate=True) as paths: say("done"); wait()')
    first.hears("half")
    second = Process(tmp_path, 'say("asks")\nwith held("slide") as paths: say(str(paths[0].stat().st_size))', most=1000)
    second.hears("asks")
    first.go_on()
    first.hears("done")
    second.hears("100")
    first.go_on()
    first.ends_well()
    second.ends_well()
    assert (tmp_path / "downloads").read_text() == "slide\n"


def test_a_process_that_is_killed_in_mid_download_leaves_nothing_in_the_way(tmp_path, cache):
    killed = Process(tmp_path, 'with held("slide", size=900, gate=True): pass')
    killed.hears("half")
    assert names_in(cache) == ["needs", "slide"]
    killed.kill()
    use(cache, "other", 900)  # counts neither its half file nor what it was to need
    assert names_in(cache) == ["other"]
    assert use(cache, "slide", 900) == 1


def test_a_path_that_another_process_has_but_not_opened_yet_stays(tmp_path, cache):
    other = Process(
        tmp_path, 'with held("slide", size=900) as paths: say("has it"); wait(); say(str(len(paths[0].read_bytes())))'
    )
    other.hears("has it")
    use(cache, "a", 900)
    other.go_on()
    other.hears("900")
    other.ends_well()
    use(cache, "b", 900)
    assert names_in(cache) == ["b"]


def test_an_entry_that_is_deleted_while_it_is_asked_for_is_made_anew(cache, monkeypatch):
    """Another process has made its folder, and deletes it at that very moment."""
    entry, mkdir, left = cache._entry_of(["a"]), Path.mkdir, [1]

    def made_by_another(self, *arguments, **options):
        if self == entry and left:
            left.clear()
            raise FileExistsError(errno.EEXIST, "File exists", str(self))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", made_by_another)
    assert use(cache, "a") == 1
    assert left == []


def test_a_file_in_the_place_of_an_entry_is_told(cache):
    entry = cache._entry_of(["a"])
    entry.parent.mkdir()
    entry.touch()
    with pytest.raises(NotADirectoryError):
        use(cache, "a")


def test_many_processes_in_a_small_cache_always_find_whole_files(tmp_path):
    """Each entry is a third of the bound: of six names that four processes want all the time, most are evicted."""
    code = """
        for turn in range(150):
            name = random.choice("abcdef")
            with held(name, size=300) as paths:
                found = paths[0].read_bytes()
                assert found == (name.encode() * 150 + b"." * 150), (name, len(found))
    """
    for process in [Process(tmp_path, code, most=900) for _ in range(4)]:
        process.ends_well()
    assert len((tmp_path / "downloads").read_text().split()) > 6
    cache = FileCache(tmp_path / "cache", 900)
    use(cache, "last", 300)
    assert sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()) <= 900
