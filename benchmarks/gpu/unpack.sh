# Install and unpack what pack.py has packed, and set the environment. In the checkout's root:
#     source benchmarks/gpu/unpack.sh FOLDER [TARGET]
# TARGET, by default /tmp/fcnlab-gpu, gets packages, data and caches. Nothing else on the machine changes.
packed=$1
target=${2:-/tmp/fcnlab-gpu}
mkdir -p "$target/data/weights"
if [ -f "$packed/camvid.tar" ]; then tar xf "$packed/camvid.tar" -C "$target/data" & fi
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
  --target "$target/packages" "$packed"/wheels/*.whl
for weights in "$packed"/*.safetensors.xz; do
  [ -f "$weights" ] && python3 -c "
import lzma, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(sys.argv[2], 'wb') as plain:
    shutil.copyfileobj(packed, plain)" "$weights" "$target/data/weights/$(basename "${weights%.xz}")"
done
wait
export PYTHONPATH="$target/packages:$PWD" FCNLAB_DATA="$target/data" FCNLAB_CACHE="$target/cache" PYTHONUNBUFFERED=1
# Containers often turn off compiled bytecode; importing torch then takes several seconds longer in each process.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX="$target/bytecode"
