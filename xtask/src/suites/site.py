"""A folder that is a package index for pip, a registry for npm, one for cargo and a repository for git, served on loopback.

usage: site.py FOLDER LOG, prints the port, and writes down what was asked for
"""

import base64
import hashlib
import http.server
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

NAME = "packages.host.internal"
folder = pathlib.Path(sys.argv[1]).resolve()
log = open(sys.argv[2], "a", buffering=1)


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=folder)

    def log_message(self, _format, *arguments):
        log.write(f"{self.headers.get('Host')} {arguments[0]}\n")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
base = f"http://{NAME}:{server.server_port}"


def put(path, content):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


# pip: a page with links, and a wheel.
wheel = io.BytesIO()
info = "cell_greeting-1.0.dist-info"
files = {
    "cell_greeting.py": "def greet():\n    return 'hello from pip'\n",
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: cell-greeting\nVersion: 1.0\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: site\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(wheel, "w") as packed:
    for name, text in files.items():
        packed.writestr(name, text)
file = "cell_greeting-1.0-py3-none-any.whl"
put(f"pip/files/{file}", wheel.getvalue())
put("pip/simple/cell-greeting/index.html", f'<a href="../../files/{file}">{file}</a>\n')

# npm: a description, and a package.
package = archive({
    "package/package.json": json.dumps({"name": "cell-greeting", "version": "1.0.0", "main": "index.js"}),
    "package/index.js": "module.exports = () => 'hello from npm'\n",
})
put("npm/files/cell-greeting-1.0.0.tgz", package)
version = {
    "name": "cell-greeting",
    "version": "1.0.0",
    "main": "index.js",
    "dist": {
        "tarball": f"{base}/npm/files/cell-greeting-1.0.0.tgz",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode(),
    },
}
put("npm/cell-greeting", json.dumps({
    "name": "cell-greeting", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version},
}))

# cargo: a sparse index, and a crate.
crate = archive({
    "cell-greeting-1.0.0/Cargo.toml": '[package]\nname = "cell-greeting"\nversion = "1.0.0"\nedition = "2021"\n',
    "cell-greeting-1.0.0/src/lib.rs": "pub fn greet() -> &'static str {\n    \"hello from cargo\"\n}\n",
})
put("cargo/files/cell-greeting-1.0.0.crate", crate)
put("cargo/index/config.json", json.dumps({"dl": f"{base}/cargo/files/{{crate}}-{{version}}.crate"}))
put("cargo/index/ce/ll/cell-greeting", json.dumps({
    "name": "cell-greeting", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
    "cksum": hashlib.sha256(crate).hexdigest(),
}) + "\n")

# git: a repository as plain files.
work = folder / "work"
put("work/greeting.txt", "hello from git\n")
author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
for command in [["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]]:
    subprocess.run(["git", *author, *command], cwd=work, check=True)
subprocess.run(["git", "clone", "-q", "--bare", work, folder / "greeting.git"], check=True)
subprocess.run(["git", "update-server-info"], cwd=folder / "greeting.git", check=True)

put("greeting.txt", "hello from a server\n")
print(server.server_port, flush=True)
server.serve_forever()
