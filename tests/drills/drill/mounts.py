"""Disks that a drill may fill and break: mounts in a namespace of its own, which end with it."""

import contextlib
import os
import pathlib
import subprocess
import sys

IN_A_NAMESPACE = "DRILLS_IN_A_MOUNT_NAMESPACE"

NOT_ALLOWED = "no leave to mount (neither root nor user namespaces): NOTHING WAS TRIED"


def enter_namespace(directory):
    """Starts the drill anew where mounts are its own; returns, once this is so, whether it is."""
    if IN_A_NAMESPACE in os.environ:
        return True
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            allowed = subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
        except FileNotFoundError:
            return False
        if allowed:
            directory.rmdir()
            environment = {**os.environ, IN_A_NAMESPACE: "1"}
            os.execvpe("unshare", [*unshare, sys.executable, "-m", "drill", *sys.argv[1:]], environment)
    return False


@contextlib.contextmanager
def small_disk(path, size_mib):
    """A tmpfs of this size."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=False)


class BreakableDisk:
    """An ext4 of its own in a file, which can be made to fail as a bad disk does: the kernel makes it read-only at once,
    whatever is open."""

    def __init__(self, path, size_mib=64):
        self.path = path
        self.image = path.with_suffix(".image")
        self.size_bytes = size_mib << 20
        self.device = None

    def make(self):
        """Makes and mounts it; returns whether that was possible."""
        self.path.mkdir()
        self.image.touch()
        os.truncate(self.image, self.size_bytes)
        try:
            subprocess.run(["mkfs.ext4", "-q", self.image], check=True, stderr=subprocess.DEVNULL)
            self.mount()
        except (FileNotFoundError, subprocess.CalledProcessError):
            return False
        return self.trigger().exists()

    def mount(self):
        command = ["mount", "-o", "loop,errors=remount-ro", self.image, self.path]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found = subprocess.run(["findmnt", "-no", "SOURCE", self.path], check=True, capture_output=True, text=True)
        self.device = pathlib.Path(found.stdout.strip()).name

    def trigger(self):
        return pathlib.Path(f"/sys/fs/ext4/{self.device}/trigger_fs_error")

    def fail(self):
        self.trigger().write_text("drill\n")

    def mend(self):
        """As an operator does: checked, and mounted again. Nothing may be open on it."""
        self.unmount()
        subprocess.run(["fsck.ext4", "-p", self.image], check=False, stdout=subprocess.DEVNULL)
        self.mount()

    def unmount(self):
        subprocess.run(["umount", self.path], check=False, stderr=subprocess.DEVNULL)
