"""`gill-lite fetch`: the paper's weights and data, complete and checked, or one sentence why not.

What is here already is compared with checksums.json and not downloaded again.
"""

import shutil

from tabulate import tabulate

from gill_lite.errors import GillError
from gill_lite.fetching import hub
from gill_lite.fetching.checksums import Checksums
from gill_lite.fetching.download import check_kind, download, refuse_offline
from gill_lite.fetching.pictures import bytes_here, fetch_pictures
from gill_lite.fetching.sources import GB, MB, File, Source, human, load_sources
from gill_lite.fetching.unpack import unpack
from gill_lite.files import only_one, tidy


def fetch(names, data_dir, dry_run: bool = False, sources=None) -> None:
    """Bring the sources called `names` into `data_dir` (models: into the hub's cache).

    sources: a JSON file that changes the table of `sources.py`. dry_run: print it only.
    Raises GillError for what cannot be had; the same call again brings what is missing.
    """
    table = load_sources(sources)
    chosen = [table[name] for name in dict.fromkeys(names)]
    if dry_run:
        print(describe(chosen, data_dir))
        return
    with only_one(data_dir):
        checksums = Checksums(data_dir)
        files = {s.name: [f for f in s.files if not _is_here(f, checksums)] for s in chosen}
        wanted = {s.name: s.model for s in chosen if s.model}
        models = {name: m for name, m in wanted.items() if not hub.is_here(m, checksums)}
        missing = [file.path for each in files.values() for file in each]
        refuse_offline([*missing, *(model.repo for model in models.values())])
        plans = {name: hub.plan(model, checksums) for name, model in models.items()}
        check_space(chosen, files, plans, checksums)
        for source in chosen:
            _fetch_one(source, files[source.name], plans.get(source.name), checksums)


def describe(chosen: list[Source], data_dir) -> str:
    """The table of `--dry-run`: where each file comes from, its size and its licence."""
    rows = []
    for source in chosen:
        parts = [(file.url, file.size) for file in source.files]
        if source.pictures:
            parts.append(("each picture's own URL", source.pictures_size))
        if model := source.model:
            at = model.revision or "the commit of the first download"
            parts.append((f"{model.repo} at {at}", model.size))
        rows += [[source.name, place, human(size), source.licence] for place, size in parts]
    lines = [tabulate(rows, headers=["source", "from", "size", "licence"]), ""]
    lines += [f"{source.name}: {source.note}" for source in chosen if source.note]
    total = human(sum(_stated(source) for source in chosen))
    lines.append(f"In all {total}, into {data_dir} (models: {hub.cache_dir()}).")
    return "\n".join([*lines, "Nothing was downloaded."])


def check_space(chosen, files: dict, plans: dict, checksums: Checksums) -> None:
    """Raise GillError where what is still missing does not fit, disk by disk.

    files: source -> files to download; plans: source -> hub.Plan of a model.
    """
    here = sum(file.size + file.unpacked for each in files.values() for file in each)
    for source in chosen:
        if source.pictures:
            here += max(0, source.pictures_size - bytes_here(source, checksums))
    cache = sum(plan.missing + plan.to_convert for plan in plans.values())
    here += sum(plan.to_convert for plan in plans.values())
    by_disk: dict[int, list] = {}
    for folder, size in ((checksums.data_dir, here), (hub.cache_dir(), cache)):
        folder = folder.absolute()
        folder = next(path for path in (folder, *folder.parents) if path.exists())
        by_disk.setdefault(folder.stat().st_dev, [folder, 0])[1] += size
    for folder, size in by_disk.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise GillError(
                f"the disk of {folder} has {human(free)} free, but {human(size)} are still "
                "missing; free some space, or choose another --data-dir (models: HF_HOME)"
            )


def _stated(source: Source) -> int:
    files = sum(file.size for file in source.files)
    return files + source.pictures_size + (source.model.size if source.model else 0)


# ---- one source --------------------------------------------------------------------------


def _fetch_one(source: Source, files: list[File], plan, checksums: Checksums) -> None:
    for file in files:
        _fetch_file(file, checksums)
    if source.pictures:
        fetch_pictures(source, checksums)
    if plan:
        hub.fetch_model(plan, checksums)
    checksums.save()
    where = checksums.data_dir / source.name
    if source.model:
        known = checksums.models[source.model.repo]
        where = f"{source.model.repo}, commit {known['revision']}, {hub.cache_dir()}"
    print(f"{source.name}: complete and checked ({where})")


def _is_here(file: File, checksums: Checksums) -> bool:
    """Whether the file (an archive: what was unpacked from it) is here as recorded."""
    if file.members:
        here = checksums.present(checksums.unpacked_from(file.path))
        return here and file.sha256 in (None, checksums.archives.get(file.path))
    path = checksums.data_dir / file.path
    if path.is_file() and file.path not in checksums.files:  # somebody put it there
        check_kind(path, file.kind, str(path))
        checksums.note(file.path, "found in the folder")
    if not checksums.present([file.path]):
        return False
    if file.sha256 not in (None, checksums.files[file.path]["sha256"]):
        raise GillError(f"{path} is not the file gill-lite knows (sha256 differs); delete it")
    return True


def _fetch_file(file: File, checksums: Checksums) -> None:
    path = checksums.data_dir / file.path
    recorded = checksums.archives.get(file.path) or checksums.files.get(file.path, {}).get("sha256")
    known, most = file.sha256 or recorded, 4 * file.size + 200 * MB
    tidy(path.parent, "*")
    digest = download(
        file.url, path, file.kind, known_sha256=known, most=file.size if file.sha256 else most
    )
    if file.members:
        try:
            members = unpack(path, file.members, path.parent, 4 * file.unpacked + GB)
        finally:
            path.unlink()  # its sha256 stays on record
        checksums.archives[file.path] = digest
        for member in members:
            checksums.note(member.relative_to(checksums.data_dir).as_posix(), file.path)
    else:
        checksums.note(file.path, file.url, digest)
    checksums.save()
